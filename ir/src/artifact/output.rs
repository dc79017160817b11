//! Files that are written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How a path is written.
enum Place {
    /// A file, there already or not: under another name beside it first.
    File(PathBuf),
    /// Anything else, such as a pipe: as it is.
    Other,
}

/// Finds out whether a file can be written, and leaves everything as it is.
///
/// # Errors
/// What the system says against it.
pub fn check_writable(path: &Path) -> io::Result<()> {
    match place(path)? {
        Place::Other => Ok(()),
        Place::File(path) => fs::remove_file(temporary(&path)?.0),
    }
}

/// Writes a file under another name beside it and renames it: a file of that name is either replaced
/// by the whole of these bytes or left alone.
///
/// # Errors
/// What the system says against it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole_with(path, |error| error, |file| file.write_all(bytes))
}

/// As [`write_whole`], for contents that come bit by bit: `fill` writes them, and `refused` says what an
/// error of the file is to the caller.
///
/// # Errors
/// Those of `fill`, and what the system says against the file.
pub fn write_whole_with<E>(
    path: &Path,
    refused: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let Place::File(path) = place(path).map_err(&refused)? else {
        let mut file = BufWriter::new(
            OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(&refused)?,
        );
        fill(&mut file)?;
        return file.flush().map_err(refused);
    };
    let (part, file) = temporary(&path).map_err(&refused)?;
    let mut file = BufWriter::new(file);
    let written = fill(&mut file).and_then(|()| {
        file.flush()
            .and_then(|()| match fs::metadata(&path) {
                Ok(old) => file.get_ref().set_permissions(old.permissions()),
                Err(_) => Ok(()),
            })
            .and_then(|()| fs::rename(&part, &path))
            .map_err(refused)
    });
    if written.is_err() {
        // The first error is the one to tell of.
        let _ = fs::remove_file(&part);
    }
    written
}

fn place(path: &Path) -> io::Result<Place> {
    match fs::metadata(path) {
        // Opened, so that the system itself says why it cannot be written.
        Ok(meta) if meta.is_file() || meta.is_dir() => {
            OpenOptions::new().write(true).open(path)?;
            // A link stays one: what it stands for is replaced.
            path.canonicalize().map(Place::File)
        }
        Ok(_) => Ok(Place::Other),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        // A link to nothing.
        Err(_) if path.is_symlink() => Ok(Place::Other),
        Err(error) if path.file_name().is_none() => Err(error),
        // A name with a slash at its end is a directory's, which opening says and changes nothing.
        Err(_) if path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            Ok(Place::Other)
        }
        Err(_) => Ok(Place::File(path.to_owned())),
    }
}

/// A new file in the directory of `path`.
fn temporary(path: &Path) -> io::Result<(PathBuf, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let part = path.with_file_name(format!(".nemo-{}-{count}.part", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&part) {
            // Left by a process of the same number that was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (part, file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn written_whole_or_left_alone() {
        let dir = std::env::temp_dir().join(format!("nemo-output-{}", std::process::id()));
        fs::create_dir_all(dir.join("inner")).unwrap();
        let (file, inner) = (dir.join("a"), dir.join("inner"));
        check_writable(&file).unwrap();
        assert_eq!(names(&dir), ["inner"]);
        write_whole(&file, b"one").unwrap();
        check_writable(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"one");
        write_whole(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        for bad in [&inner, &dir.join("nowhere/a"), &dir.join("b/"), &file.join("a"), Path::new("")] {
            let said = check_writable(bad).unwrap_err().to_string();
            assert_eq!(write_whole(bad, b"three").unwrap_err().to_string(), said, "{}", bad.display());
        }
        check_writable(Path::new("/dev/null")).unwrap();
        write_whole(Path::new("/dev/null"), b"four").unwrap();
        std::os::unix::fs::symlink("a", dir.join("link")).unwrap();
        write_whole(&dir.join("link"), b"five").unwrap();
        assert!(dir.join("link").is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"five");
        std::os::unix::fs::symlink("c", dir.join("to-nothing")).unwrap();
        write_whole(&dir.join("to-nothing"), b"six").unwrap();
        assert_eq!(names(&dir), ["a", "c", "inner", "link", "to-nothing"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
