//! Static files: a folder or a file of the disk, as the answer to `GET` and `HEAD`.
//!
//! A request takes this way. `name` decodes the path and refuses those that could mean anything but a file below the
//! folder. On a thread of the blocking pool, `disk` opens the file; `conditions` and `range` decide what of it is
//! sent ([RFC 9110 §13, §14]). Back on the worker, `answer` makes the response of that, and `body` reads a long file
//! piece by piece while it is sent. `name`, `conditions` and `range` have no I/O and no clock.
//!
//! The rules:
//!
//! - **No way out.** Each name of a path is decoded once, and is then a plain name or refused. The kernel resolves the
//!   path below the folder (`cap-std`), so a symlink that is changed meanwhile does not lead out either.
//! - **Regular files only.** The kind is looked at before the file is opened, and again after. The file is opened
//!   without blocking, so that a FIFO that takes its place between the two holds no thread.
//! - **No disk work on a worker**, and no more than one piece of a file in memory for each response.
//! - **A stranger is not loud in the log.** What a client asks for in vain is told at debug. A failure of the
//!   server itself is logged at warn, once a minute for each folder, and at debug in between.
//!
//! [RFC 9110 §13, §14]: https://www.rfc-editor.org/rfc/rfc9110#section-13

mod answer;
mod body;
mod conditions;
mod disk;
mod name;
mod range;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::answer::{REST, Served};
use self::disk::Place;
use crate::proto::handshake::is_header_line;

/// A folder of files for [`Route::files`](crate::server::Route::files), and how they are served.
///
/// ```
/// use tidewire::Server;
/// use tidewire::server::Files;
///
/// # fn main() -> std::io::Result<()> {
/// # let folder = std::env::temp_dir();
/// let mut server = Server::new();
/// // Names with a hash of the content in them: a browser need not ask again.
/// let files = Files::new(&folder).no_index().cache_control("public, max-age=31536000, immutable");
/// server.at("/assets").files(files)?;
/// # Ok(())
/// # }
/// ```
///
/// # Which files
///
/// The folder is looked up anew for each request, so it may be replaced while the server runs. Only regular files are
/// served. A symlink is followed if it stays inside the folder; one with an absolute target counts as leading out. A
/// path is answered with 404, like one of a file that is not there, if one of its names is hidden (it begins with a
/// dot), is not UTF-8, or has a slash, a backslash or a NUL once it is decoded. On Windows that also holds for the names
/// of devices, for those with a colon, a final dot or space, and for those that look like a short name (`GIT~1`).
/// Folders are not listed.
///
/// A path that ends with a slash is answered with the [index](Self::index) of that folder, and the path of a folder
/// without the slash with a redirect (308) to the one with it.
///
/// # How they are sent
///
/// The media type is that of the name's extension, `application/octet-stream` if there is none, with
/// `X-Content-Type-Options: nosniff`. Text is declared as UTF-8. `ETag` is made of the length and the time of change, to
/// the nanosecond; it is weak while the last change is less than 2 s ago. A file whose time is one of the first two
/// seconds of 1970, as some build systems set it, has neither `ETag` nor `Last-Modified`. `If-Match`, `If-None-Match`,
/// `If-Unmodified-Since`, `If-Modified-Since` and `If-Range` are followed (RFC 9110 §13). A request for one range of bytes
/// is answered with that part (206, or 416 if it lies behind the end), and one for several ranges with the whole file
/// (§14.2).
///
/// Files are read on threads for that, not on a worker, up to 64 KiB ahead of the client. A file that grows while
/// it is sent is sent up to its first length. If it becomes shorter, the response ends broken. So replace a file by a
/// rename, and not by writing to it.
///
/// # Errors of the server
///
/// If a file that is there cannot be read, for want of permission or of file descriptors, or if the folder is gone, the
/// answer is a 500. A record at level warn tells it, at most one a minute for a folder.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
    index: Option<String>,
    cache_control: Option<String>,
    serves_hidden: bool,
}

impl Files {
    /// The files below `dir`, which has to be there when it is mounted. A relative path is taken from the directory that
    /// is the current one then.
    #[must_use]
    pub fn new(dir: impl AsRef<Path>) -> Self {
        let dir = dir.as_ref().to_owned();
        let index = Some("index.html".to_owned());
        Self { dir, index, cache_control: None, serves_hidden: false }
    }

    /// The name of the file that is sent for a folder; `index.html` by default.
    #[must_use]
    pub fn index(self, name: impl Into<String>) -> Self {
        Self { index: Some(name.into()), ..self }
    }

    /// Answers 404 to the path of a folder, with and without a slash at its end.
    #[must_use]
    pub fn no_index(self) -> Self {
        Self { index: None, ..self }
    }

    /// The value of `Cache-Control` for all of the files; without it there is no such header, and clients guess.
    #[must_use]
    pub fn cache_control(self, value: impl Into<String>) -> Self {
        Self { cache_control: Some(value.into()), ..self }
    }

    /// Also serves files and folders whose name begins with a dot, such as `.git` and `.env`, if they are there.
    ///
    /// For `/.well-known` alone, mount that folder: the name of the folder itself may begin with a dot.
    #[must_use]
    pub fn serve_hidden_files(self) -> Self {
        Self { serves_hidden: true, ..self }
    }

    /// Checks the options and the folder.
    pub(crate) fn check(self) -> io::Result<Served> {
        if let Some(index) = self.index.as_deref().filter(|index| !name::is_safe(index)) {
            let text = format!("the index {index:?} is not the name of a file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let has_breaks = |value: &&str| !is_header_line("cache-control", value);
        if let Some(value) = self.cache_control.as_deref().filter(has_breaks) {
            let text = format!("HTTP does not allow {value:?} as Cache-Control");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let place = Place::folder(&self.dir, self.index)?;
        Ok(Served::new(place, self.cache_control, self.serves_hidden))
    }
}

/// One file, whichever path leads to it.
pub(crate) fn one_file(file: &Path) -> io::Result<Served> {
    Ok(Served::new(Place::file(file)?, None, true))
}
