//! The work on the disk: a file is found, opened and, if it is short, read. All of it runs on a thread that may wait.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions, OpenOptionsExt};

use super::conditions::{Conditions, Validators, Verdict};
use super::name::Name;
use super::range::Range;

/// The largest piece of a file that is read at once, in bytes.
pub(super) const PIECE: usize = 64 << 10;

/// Where the files are, as an absolute path.
#[derive(Debug)]
pub(super) enum Place {
    Folder { dir: PathBuf, index: Option<String> },
    File(PathBuf),
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing that is served.
    Missing,
    /// A folder, by a path without a slash at its end.
    Folder,
    File(Selected),
    /// The server cannot tell, or cannot open it.
    Failed,
}

/// A file, and what of it is sent.
#[derive(Debug)]
pub(super) struct Selected {
    /// The path whose extension tells the media type.
    pub(super) path: PathBuf,
    pub(super) file: Validators,
    pub(super) verdict: Verdict,
    /// `None` if no byte of it is needed.
    pub(super) content: Option<Content>,
}

/// The bytes that are sent.
#[derive(Debug)]
pub(super) enum Content {
    Read(Vec<u8>),
    /// So many bytes, from where the file is read next.
    Ahead(File, u64),
}

impl Place {
    /// Checks that a folder is there.
    pub(super) fn folder(dir: &Path, index: Option<String>) -> io::Result<Self> {
        let opened = std::path::absolute(dir).and_then(|dir| {
            Dir::open_ambient_dir(&dir, ambient_authority())?;
            Ok(dir)
        });
        let dir = opened.map_err(|error| named(dir, &error))?;
        Ok(Self::Folder { dir, index })
    }

    /// Checks that a file is there.
    pub(super) fn file(file: &Path) -> io::Result<Self> {
        let checked = std::path::absolute(file).and_then(|path| {
            let is_file = path.metadata()?.is_file();
            let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            is_file.then_some(path).ok_or_else(no_file)
        });
        checked.map(Self::File).map_err(|error| named(file, &error))
    }

    /// The path that an operator knows.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder { dir, .. } => dir,
            Self::File(file) => file,
        }
    }

    /// Finds what `name` leads to, and opens it. An error is one of the server, and not of the client.
    pub(super) fn find(
        &self,
        name: &Name,
        conditions: &Conditions,
        is_get: bool,
    ) -> io::Result<Found> {
        let (path, opened) = match self {
            Self::Folder { dir, index } => {
                let path = match (name.is_folder, index) {
                    (false, _) => name.path.clone(),
                    (true, Some(index)) => name.path.join(index),
                    (true, None) => return Ok(Found::Missing),
                };
                if path.as_os_str().is_empty() {
                    // The folder itself.
                    return Ok(if index.is_some() { Found::Folder } else { Found::Missing });
                }
                let dir = Dir::open_ambient_dir(dir, ambient_authority())?;
                match dir.metadata(&path) {
                    Ok(metadata) if metadata.is_file() => {}
                    Ok(metadata) if metadata.is_dir() && !name.is_folder && index.is_some() => {
                        return Ok(Found::Folder);
                    }
                    Ok(_) => return Ok(Found::Missing),
                    Err(error) => return missing(error),
                }
                let opened = open(|options| dir.open_with(&path, options));
                (path, opened)
            }
            Self::File(path) => {
                match path.metadata() {
                    Ok(metadata) if metadata.is_file() => {}
                    Ok(_) => return Ok(Found::Missing),
                    Err(error) => return missing(error),
                }
                let authority = ambient_authority();
                let opened =
                    open(|options| cap_std::fs::File::open_ambient_with(path, options, authority));
                (path.clone(), opened)
            }
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return missing(error),
        };
        let Some((opened, metadata)) = opened else { return Ok(Found::Missing) };
        let modified = metadata.modified().ok().map(cap_std::time::SystemTime::into_std);
        let file = Validators::new(metadata.len(), modified, SystemTime::now());
        let verdict = conditions.judge(&file);
        let content = match verdict {
            Verdict::Send(range) if is_get => Content::of(opened, range, file.len)?,
            _ => None,
        };
        Ok(Found::File(Selected { path, file, verdict, content }))
    }
}

impl Content {
    fn of(mut file: File, range: Range, len: u64) -> io::Result<Option<Self>> {
        let len = match range {
            Range::Whole => len,
            Range::Part(first, last) => {
                file.seek(SeekFrom::Start(first))?;
                last.saturating_sub(first).saturating_add(1)
            }
            Range::Unsatisfiable => return Ok(None),
        };
        match usize::try_from(len) {
            Ok(len) if len <= PIECE => {
                let mut bytes = vec![0; len];
                file.read_exact(&mut bytes)?;
                Ok(Some(Self::Read(bytes)))
            }
            _ => Ok(Some(Self::Ahead(file, len))),
        }
    }
}

/// Opens a regular file; `None` if there is none.
///
/// What else may stand there now is opened without waiting: a FIFO would wait for its writer.
fn open(
    open: impl FnOnce(&OpenOptions) -> io::Result<cap_std::fs::File>,
) -> io::Result<Option<(File, Metadata)>> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    options.custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default());
    let file = open(&options)?;
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then(|| (file.into_std(), metadata)))
}

/// Takes an error that says that there is no such file below the folder. Any other is one of the server.
fn missing(error: io::Error) -> io::Result<Found> {
    let is_missing = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
        // A symlink that leads out: the error is cap-std's, and not the system's.
        io::ErrorKind::PermissionDenied => error.raw_os_error().is_none(),
        _ => is_no_name(&error),
    };
    if is_missing { Ok(Found::Missing) } else { Err(error) }
}

/// Whether the system cannot have a file of such a name: it is too long, or a symlink that leads to itself.
#[cfg(unix)]
fn is_no_name(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let code = error.raw_os_error();
    [Errno::NAMETOOLONG, Errno::LOOP].iter().any(|no_name| Some(no_name.raw_os_error()) == code)
}

/// Whether the system cannot have a file of such a name: ERROR_INVALID_NAME, ERROR_FILENAME_EXCED_RANGE,
/// ERROR_CANT_RESOLVE_FILENAME.
#[cfg(not(unix))]
fn is_no_name(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(123 | 206 | 1921))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;
    use std::{env, fs, process, thread};

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_path_that_leads_nowhere_is_missing_and_all_else_is_an_error_of_the_server() {
        for errno in [Errno::NOENT, Errno::NOTDIR, Errno::NAMETOOLONG, Errno::LOOP] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            assert!(matches!(missing(error), Ok(Found::Missing)), "{errno}");
        }
        for errno in [Errno::ACCESS, Errno::MFILE, Errno::NFILE, Errno::IO, Errno::NOMEM] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            assert!(missing(error).is_err(), "{errno}");
        }
    }

    #[test]
    fn a_fifo_that_has_taken_the_place_of_a_file_is_opened_without_waiting_and_not_served() {
        let folder = env::temp_dir().join(format!("tidewire-fifo-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let (sender, receiver) = mpsc::channel();
        // A thread that hangs cannot be told to end.
        thread::spawn(move || {
            let authority = ambient_authority();
            let opened =
                open(|options| cap_std::fs::File::open_ambient_with(&fifo, options, authority));
            sender.send(opened.map(|opened| opened.is_some())).unwrap();
        });
        let is_served = receiver.recv_timeout(Duration::from_secs(5));
        fs::remove_dir_all(&folder).unwrap();
        assert!(!is_served.expect("it waits for a writer").unwrap());
    }
}
