//! Files that a command writes.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::CommandError;

/// A file that gets its name when it is whole. Until then what is written stands beside it, in `NAME.partial`, and whatever has
/// the name keeps it. What an earlier run has left in `NAME.partial` stays until something is written, and nothing is left of a
/// file that never was.
#[derive(Debug)]
pub(super) struct OutFile {
    file: PathBuf,
    /// Where the bytes go; none where the name is a device's or a pipe's, which take them at once.
    partial: Option<PathBuf>,
    writer: BufWriter<File>,
    /// Whether the partial file is this one's alone: it was not there, or has been emptied.
    own: bool,
    written: bool,
}

impl OutFile {
    /// Begins a file, which must be none of `inputs`, and none of the files of a checkpoint among them.
    pub(super) fn create(file: &Path, inputs: &[&Path]) -> Result<Self, CommandError> {
        let refused = |source| CommandError::Write { file: file.to_owned(), source };
        if file == Path::new("-") {
            return Err(CommandError::Refused("`-` is no file to write to; name one".to_owned()));
        }
        // A file that is not there yet is no input.
        if let Ok(known) = file.canonicalize() {
            let is_read = |input: &&&Path| {
                let Ok(input) = input.canonicalize() else { return false };
                known == input || known.starts_with(&input) && of_checkpoint(&known)
            };
            if let Some(input) = inputs.iter().find(is_read) {
                return Err(CommandError::Refused(format!(
                    "`{}` would be written over, which is read from `{}`",
                    file.display(),
                    input.display()
                )));
            }
        }
        let special = fs::metadata(file).is_ok_and(|found| !found.is_file() && !found.is_dir());
        if file.is_dir() {
            return Err(refused(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        let partial = (!special).then(|| {
            let mut name = file.as_os_str().to_owned();
            name.push(".partial");
            PathBuf::from(name)
        });
        let own = partial.as_ref().is_some_and(|partial| !partial.exists());
        let opened = File::options().write(true).create(own).open(partial.as_deref().unwrap_or(file));
        let writer = BufWriter::new(opened.map_err(refused)?);
        Ok(Self { file: file.to_owned(), partial, writer, own, written: false })
    }

    /// Writes text, which is on its way to the disk at once.
    pub(super) fn write(&mut self, text: &str) -> Result<(), CommandError> {
        let failed = |source| CommandError::Write { file: self.file.clone(), source };
        if self.partial.is_some() && !self.own {
            self.writer.get_ref().set_len(0).map_err(failed)?;
            self.own = true;
        }
        self.written = true;
        self.writer.write_all(text.as_bytes()).and_then(|()| self.writer.flush()).map_err(failed)
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> Result<(), CommandError> {
        // Nothing is left for the drop to take away.
        let Some(partial) = self.partial.take() else { return Ok(()) };
        fs::rename(partial, &self.file)
            .map_err(|source| CommandError::Write { file: self.file.clone(), source })
    }
}

/// Whether a file is of a kind that a checkpoint consists of.
fn of_checkpoint(file: &Path) -> bool {
    file.extension().is_some_and(|kind| kind == "safetensors" || kind == "json" || kind == "jinja")
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.as_ref().filter(|_| self.own && !self.written) {
            // An empty file too many is not worth a word.
            let _ = fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out.txt");
        let partial = dir.path().join("out.txt.partial");
        fs::write(&file, "before").unwrap();
        drop(OutFile::create(&file, &[]).unwrap());
        assert!(!partial.exists());
        let mut out = OutFile::create(&file, &[]).unwrap();
        out.write("half").unwrap();
        assert_eq!(fs::read_to_string(&partial).unwrap(), "half");
        drop(out);
        assert_eq!((fs::read_to_string(&file).unwrap(), partial.exists()), ("before".to_owned(), true));
        // What is left of a run is not lost to one that writes nothing.
        drop(OutFile::create(&file, &[]).unwrap());
        assert_eq!(fs::read_to_string(&partial).unwrap(), "half");
        let mut out = OutFile::create(&file, &[]).unwrap();
        out.write("all").unwrap();
        out.write(" of it").unwrap();
        out.finish().unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap(), partial.exists()), ("all of it".to_owned(), false));
        let mut null = OutFile::create(Path::new("/dev/null"), &[]).unwrap();
        null.write("x").unwrap();
        null.finish().unwrap();
    }

    #[test]
    fn inputs_are_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("weights");
        fs::create_dir(&input).unwrap();
        let inside = input.join("model.safetensors");
        fs::write(&inside, "weights").unwrap();
        let refused = |file: &Path, inputs: &[&Path]| OutFile::create(file, inputs).unwrap_err().to_string();
        assert!(refused(&inside, &[&input]).contains("would be written over"));
        assert!(
            refused(&input.join("../weights/model.safetensors"), &[&inside])
                .contains("would be written over")
        );
        assert!(refused(dir.path(), &[]).contains("is a directory"));
        assert!(refused(Path::new("-"), &[]).contains("no file"));
        let curve = input.join("curve.svg");
        assert!(OutFile::create(&curve, &[&input]).is_ok());
        fs::write(&curve, "an older one").unwrap();
        assert!(OutFile::create(&curve, &[&input]).is_ok());
        assert_eq!(fs::read_to_string(&inside).unwrap(), "weights");
    }
}
