//! Memory and descriptors of this process over time.

use std::fmt;
use std::fs;
use std::time::Instant;

use crate::Problem;

/// The memory of the last quarter may exceed that of the second by a tenth plus this.
const SLACK_KIB: u32 = 8 << 10;

/// A shorter run has no quarters to compare.
const ENOUGH: usize = 20;

/// The number of open descriptors.
pub(crate) fn descriptors() -> Result<u32, Problem> {
    // One of them is the folder that is read.
    Ok(u32::try_from(fs::read_dir("/proc/self/fd")?.count())? - 1)
}

/// The resident memory.
fn resident_kib() -> Result<u32, Problem> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmRSS")?;
    Ok(kib.parse()?)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    second: u32,
    kib: u32,
    descriptors: u32,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { second, kib, descriptors } = self;
        write!(f, "{second:5} s: {kib} KiB, {descriptors} descriptors")
    }
}

#[derive(Debug)]
pub(crate) struct Usage {
    begin: Instant,
    samples: Vec<Sample>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { begin: Instant::now(), samples: Vec::new() }
    }
}

impl Usage {
    pub(crate) fn sample(&mut self) -> Result<Sample, Problem> {
        let second = u32::try_from(self.begin.elapsed().as_secs())?;
        let sample = Sample { second, kib: resident_kib()?, descriptors: descriptors()? };
        self.samples.push(sample);
        Ok(sample)
    }

    /// Quarter `index` of the time, from 0.
    fn quarter(&self, index: usize) -> &[Sample] {
        let len = self.samples.len() / 4;
        self.samples.chunks(len.max(1)).nth(index).unwrap_or_default()
    }

    /// Whether memory has not grown since the first quarter, in which buffers and caches fill.
    pub(crate) fn verdict(&self) -> Result<(), Problem> {
        if self.samples.len() < ENOUGH {
            return Ok(());
        }
        let [early, late] = [1, 3].map(|index| median(self.quarter(index), |sample| sample.kib));
        if late > early + early / 10 + SLACK_KIB {
            return Err(format!("memory has grown from {early} to {late} KiB").into());
        }
        Ok(())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory by quarters:")?;
        for index in 0..4 {
            write!(f, " {}", median(self.quarter(index), |sample| sample.kib))?;
        }
        let half = self.samples.split_at(self.samples.len() / 2).1;
        write!(f, " KiB, slope of the second half {:.1} KiB", slope(half, |sample| sample.kib))?;
        let descriptors = slope(half, |sample| sample.descriptors);
        write!(f, " and {descriptors:.2} descriptors per minute")
    }
}

fn median(samples: &[Sample], value: impl Fn(&Sample) -> u32) -> u32 {
    let mut values: Vec<_> = samples.iter().map(value).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The growth per minute, by least squares.
fn slope(samples: &[Sample], value: impl Fn(&Sample) -> u32) -> f64 {
    let points =
        || samples.iter().map(|sample| (f64::from(sample.second), f64::from(value(sample))));
    let count = points().map(|_| 1.0).sum::<f64>().max(1.0);
    let (x_mean, y_mean) = (
        points().map(|(x, _)| x).sum::<f64>() / count,
        points().map(|(_, y)| y).sum::<f64>() / count,
    );
    let spread = points().map(|(x, _)| (x - x_mean).powi(2)).sum::<f64>();
    let common = points().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>();
    if spread == 0.0 { 0.0 } else { 60.0 * common / spread }
}
