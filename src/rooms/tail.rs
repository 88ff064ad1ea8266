//! A channel that keeps the latest items for any number of readers. A slow reader does not hold up the
//! others. It misses the oldest items, and learns their number.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::task::AtomicWaker;

use crate::foreign;
use crate::sync::Mutex;

/// The sending end. When it is dropped, readers end after the items that are kept.
pub(super) struct Tail<T>(Arc<Mutex<Log<T>>>);

/// The receiving end. It reads all items sent since its creation.
pub(super) struct Reader<T> {
    log: Arc<Mutex<Log<T>>>,
    key: u64,
    waker: Arc<AtomicWaker>,
}

/// The next event for a reader.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Read<T> {
    Next(T),
    /// This number of items is lost to the reader, since they are not kept any more.
    Missed(u64),
}

struct Log<T> {
    /// Each item, with the number of readers that have not read it. Readers go from front to back, so items
    /// that all have read are at the front.
    kept: VecDeque<(T, usize)>,
    /// The largest number of items to keep.
    most: usize,
    /// The number of the first item that is kept. Numbers count all items ever sent.
    first: u64,
    readers: BTreeMap<u64, Cursor>,
    /// The number of readers ever created.
    keys: u64,
    is_over: bool,
}

struct Cursor {
    /// The number of the item that is read next.
    next: u64,
    waker: Arc<AtomicWaker>,
}

/// The readers to wake, and an item that no reader needs any more. Dropping it wakes the readers and drops
/// the item. Both run code of the application, so drop it without a lock.
#[must_use = "dropped under a lock, it runs code of the application there"]
pub(super) struct Told<T> {
    /// First, so that the readers are woken before the item is dropped, which may panic.
    _readers: Wakers,
    _unread: Option<T>,
}

struct Wakers(Vec<Waker>);

impl Drop for Wakers {
    fn drop(&mut self) {
        // A waker that panics must not keep the others from being woken.
        for waker in self.0.drain(..) {
            let _ = foreign::attempt(|| waker.wake());
        }
    }
}

impl<T> Tail<T> {
    /// Creates a channel that keeps at most `most` items for slow readers.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Log {
            kept: VecDeque::new(),
            most,
            first: 0,
            readers: BTreeMap::new(),
            keys: 0,
            is_over: false,
        })))
    }

    /// Sends an item to all readers.
    pub(super) fn tell(&self, item: T) -> Told<T> {
        let mut log = self.0.lock();
        let readers = log.readers.len();
        if readers == 0 {
            log.first += 1;
            return Told { _readers: Wakers(Vec::new()), _unread: Some(item) };
        }
        let mut unread = None;
        if log.kept.len() >= log.most {
            unread = log.kept.pop_front().map(|(item, _)| item);
            log.first += 1;
        }
        log.kept.push_back((item, readers));
        Told { _readers: log.waiting(), _unread: unread }
    }

    /// Creates a reader of the items that are sent from now on.
    pub(super) fn reader(&self) -> Reader<T> {
        let waker = Arc::new(AtomicWaker::new());
        let mut log = self.0.lock();
        let (key, next) = (log.keys, log.end());
        log.keys += 1;
        log.readers.insert(key, Cursor { next, waker: Arc::clone(&waker) });
        Reader { log: Arc::clone(&self.0), key, waker }
    }

    /// The number of readers.
    pub(super) fn readers(&self) -> usize {
        self.0.lock().readers.len()
    }
}

impl<T> Drop for Tail<T> {
    fn drop(&mut self) {
        let mut log = self.0.lock();
        log.is_over = true;
        let readers = log.waiting();
        drop(log);
        drop(readers);
    }
}

impl<T> Log<T> {
    /// The number of the item that is sent next.
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.kept.len()).unwrap_or(u64::MAX))
    }

    fn waiting(&self) -> Wakers {
        Wakers(self.readers.values().filter_map(|reader| reader.waker.take()).collect())
    }
}

impl<T: Clone> Reader<T> {
    /// Waits for the next item; `None` after the last.
    pub(super) fn poll_read(&self, cx: &Context<'_>) -> Poll<Option<Read<T>>> {
        let read = self.read();
        if read.is_ready() {
            return read;
        }
        // Without the lock, since wakers are code of the application. And before the second look, so that
        // no item is missed in between.
        self.waker.register(cx.waker());
        self.read()
    }

    fn read(&self) -> Poll<Option<Read<T>>> {
        let mut log = self.log.lock();
        let Log { kept, first, readers, is_over, .. } = &mut *log;
        let Some(cursor) = readers.get_mut(&self.key) else { return Poll::Ready(None) };
        let missed = first.saturating_sub(cursor.next);
        if missed > 0 {
            cursor.next = *first;
            return Poll::Ready(Some(Read::Missed(missed)));
        }
        let place = usize::try_from(cursor.next - *first).unwrap_or(usize::MAX);
        let Some((item, unread_by)) = kept.get_mut(place) else {
            return if *is_over { Poll::Ready(None) } else { Poll::Pending };
        };
        cursor.next += 1;
        *unread_by -= 1;
        if *unread_by > 0 {
            return Poll::Ready(Some(Read::Next(item.clone())));
        }
        // The last reader of an item gets the item itself, not a clone.
        *first += 1;
        Poll::Ready(kept.pop_front().map(|(item, _)| Read::Next(item)))
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        let mut unread = Vec::new();
        let mut log = self.log.lock();
        let Log { kept, first, readers, .. } = &mut *log;
        if let Some(cursor) = readers.remove(&self.key) {
            let place = usize::try_from(cursor.next.saturating_sub(*first)).unwrap_or(usize::MAX);
            kept.iter_mut().skip(place).for_each(|(_, unread_by)| *unread_by -= 1);
            while kept.front().is_some_and(|(_, unread_by)| *unread_by == 0) {
                unread.extend(kept.pop_front());
                *first += 1;
            }
        }
        drop(log);
        // Without the lock: items are values of the application.
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    fn next<T: Clone>(reader: &Reader<T>) -> Poll<Option<Read<T>>> {
        reader.poll_read(&Context::from_waker(Waker::noop()))
    }

    fn kept<T>(tail: &Tail<T>) -> usize {
        tail.0.lock().kept.len()
    }

    #[test]
    fn each_reader_reads_all_that_was_told_since_it_began_or_how_much_it_has_missed() {
        let tail = Tail::new(3);
        drop(tail.tell(0));
        let (quick, slow) = (tail.reader(), tail.reader());
        assert_eq!((next(&quick), kept(&tail)), (Poll::Pending, 0));
        for number in 1..=5 {
            drop(tail.tell(number));
            assert_eq!(next(&quick), Poll::Ready(Some(Read::Next(number))));
        }
        let late = tail.reader();
        drop(tail.tell(6));
        assert_eq!((next(&slow), kept(&tail)), (Poll::Ready(Some(Read::Missed(3))), 3));
        for number in 4..=6 {
            assert_eq!(next(&slow), Poll::Ready(Some(Read::Next(number))));
        }
        assert_eq!((next(&slow), kept(&tail)), (Poll::Pending, 1));
        assert_eq!(next(&late), Poll::Ready(Some(Read::Next(6))));
        drop(tail);
        assert_eq!((next(&slow), next(&late)), (Poll::Ready(None), Poll::Ready(None)));
        assert_eq!(next(&quick), Poll::Ready(Some(Read::Next(6))));
        assert_eq!(next(&quick), Poll::Ready(None));
    }

    #[test]
    fn an_item_is_kept_until_its_last_reader_has_read_it() {
        let tail = Tail::new(3);
        let (one, other) = (tail.reader(), tail.reader());
        (0..3).for_each(|number| drop(tail.tell(number)));
        assert_eq!(next(&one), Poll::Ready(Some(Read::Next(0))));
        assert_eq!((kept(&tail), tail.readers()), (3, 2));
        drop(other);
        assert_eq!((kept(&tail), tail.readers()), (2, 1));
        drop(one);
        assert_eq!((kept(&tail), tail.readers()), (0, 0));
        let late = tail.reader();
        drop(tail.tell(4));
        assert_eq!(next(&late), Poll::Ready(Some(Read::Next(4))));
    }

    #[test]
    fn readers_that_wait_are_woken_when_told_is_dropped() {
        struct Count(AtomicUsize);

        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let (tail, woken) = (Tail::new(3), Arc::new(Count(AtomicUsize::new(0))));
        let (one, other) = (tail.reader(), tail.reader());
        let waker = Waker::from(Arc::clone(&woken));
        for reader in [&one, &other] {
            assert!(reader.poll_read(&Context::from_waker(&waker)).is_pending());
        }
        let told = tail.tell(1);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        drop(told);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        // No reader waits any more.
        drop(tail.tell(2));
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        while next(&one).is_ready() {}
        assert!(one.poll_read(&Context::from_waker(&waker)).is_pending());
        drop(tail);
        assert_eq!(woken.0.load(Ordering::Relaxed), 3);
    }
}
