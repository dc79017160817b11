//! The commands `nemoc` and `nemort`, run as a user runs them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::golden;

/// The binaries, by name, built once per test process.
fn binaries() -> &'static HashMap<String, PathBuf> {
    static BINARIES: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        // What they depend on, this test depends on too, so nothing has to be fetched.
        let output = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--offline", "--quiet", "--message-format", "json"])
            .args(["--manifest-path", manifest, "-p", "nemoc", "-p", "nemort", "--bins"])
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "nemoc and nemort do not build");
        let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
        let built = |line: &str| -> Option<(String, PathBuf)> {
            let message: Value = serde_json::from_str(line).ok()?;
            Some((message["target"]["name"].as_str()?.to_owned(), message["executable"].as_str()?.into()))
        };
        messages.lines().filter_map(built).collect()
    })
}

/// Splits a command line at spaces; single quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    assert!(!quoted, "a quote is open in {line}");
    words.extend(word);
    words
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    /// The line that was typed.
    pub line: String,
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about; the room's own path reads `[room]`.
    pub stderr: String,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$ {}\n{}{}[exit {}]", self.line, self.stdout, self.stderr, self.code)
    }
}

/// A directory to run commands in; it goes when the test ends.
#[derive(Debug)]
pub struct Room {
    dir: TempDir,
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

impl Room {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file's bytes.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Changes a file's bytes.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read(name);
        change(&mut bytes);
        self.write(name, bytes);
    }

    /// Copies a fixture's checkpoint under its own name, to be used or damaged.
    pub fn fixture(&self, name: &str) {
        self.fixture_as(name, name);
    }

    /// Copies a fixture's checkpoint under another name.
    pub fn fixture_as(&self, name: &str, to: &str) {
        std::fs::create_dir_all(self.path(to)).expect("a directory");
        for entry in std::fs::read_dir(golden::folder(name)).expect("the fixture") {
            let entry = entry.expect("an entry");
            let file = entry.file_name().into_string().expect("a plain name");
            if !["reference.safetensors", "recite.json"].contains(&file.as_str()) {
                std::fs::copy(entry.path(), self.path(to).join(file)).expect("a copy");
            }
        }
    }

    /// Puts a fixture's artifact for some targets into the room, as `<fixture>.nemo`.
    pub fn artifact(&self, fixture: &str, targets: &str) {
        self.write(&format!("{fixture}.nemo"), artifact(fixture, targets).as_slice());
    }

    /// Runs a command line in the room.
    pub fn run(&self, line: &str) -> Ran {
        self.run_into(line, Stdio::piped())
    }

    /// Runs a command line in the room, with its standard output somewhere else.
    pub fn run_into(&self, line: &str, stdout: Stdio) -> Ran {
        self.run_between(line, Stdio::null(), stdout)
    }

    /// Runs a command line in the room, with text for its standard input.
    pub fn run_on(&self, line: &str, text: &str) -> Ran {
        // A file and not a pipe: nobody has to write while the command reads.
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(text.as_bytes()).and_then(|()| file.rewind()).expect("a written file");
        self.run_between(line, file.into(), Stdio::piped())
    }

    fn run_between(&self, line: &str, stdin: Stdio, stdout: Stdio) -> Ran {
        let words = words(line);
        let binary = &binaries()[&words[0]];
        let output = Command::new(binary)
            .args(&words[1..])
            .current_dir(self.dir.path())
            .env_remove("COLUMNS")
            .env_remove("CLICOLOR_FORCE")
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(Child::wait_with_output)
            .expect("the command runs");
        let text = |bytes| String::from_utf8(bytes).unwrap_or_else(|error| panic!("{line}: {error}"));
        let stderr = text(output.stderr).replace(&self.dir.path().display().to_string(), "[room]");
        let code = output.status.code().unwrap_or_else(|| panic!("{line}: {}\n{stderr}", output.status));
        assert!(!stderr.contains("panicked"), "{line}:\n{stderr}");
        Ran { line: line.to_owned(), code, stdout: text(output.stdout), stderr }
    }

    /// Runs a command that succeeds; what it printed.
    pub fn succeeds(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{ran}");
        ran.stdout
    }

    /// Runs a command that prints one JSON document.
    pub fn json(&self, line: &str) -> Value {
        let stdout = self.succeeds(line);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{line}: {error}\n{stdout}"))
    }

    /// Runs a command that fails with 1 and one sentence, prints nothing and writes nothing.
    pub fn fails(&self, line: &str) -> Ran {
        let ran = self.refuses(line, 1);
        assert!(ran.stdout.is_empty(), "{ran}");
        let sentence = ran.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("{ran}"));
        assert_eq!(sentence.lines().count(), 1, "{ran}");
        let said = sentence.strip_prefix("error: ");
        assert!(said.is_some_and(|said| !said.is_empty()), "{ran}");
        ran
    }

    /// Runs a command that exits with `code` and leaves the room as it was.
    pub fn refuses(&self, line: &str, code: i32) -> Ran {
        let before = self.listing();
        let ran = self.run(line);
        assert_eq!(ran.code, code, "{ran}");
        assert!(!ran.stderr.is_empty(), "{ran}");
        assert_eq!(self.listing(), before, "{ran}\nchanged its directory");
        ran
    }

    /// Every path in the room, with size and time of change.
    fn listing(&self) -> BTreeMap<PathBuf, (u64, Option<SystemTime>)> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.dir.path().to_owned()];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
                let path = entry.path();
                let meta = entry.metadata().expect("an entry");
                if meta.is_dir() {
                    open.push(path.clone());
                }
                found.insert(path, (meta.len(), meta.modified().ok()));
            }
        }
        found
    }
}

type Cache = Mutex<HashMap<(String, String), Arc<OnceLock<Vec<u8>>>>>;

/// A fixture's artifact with f32 activations, compiled by the command once per test process.
pub fn artifact(fixture: &str, targets: &str) -> Vec<u8> {
    static CACHE: OnceLock<Cache> = OnceLock::new();
    let cell = {
        let mut cache = CACHE.get_or_init(Cache::default).lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cache.entry((fixture.to_owned(), targets.to_owned())).or_default())
    };
    let compile = || {
        let room = Room::new();
        let model = golden::folder(fixture);
        room.succeeds(&format!(
            "nemoc compile '{}' --target {targets} --activations f32 --max-seqs 2 --max-context 512 -o a.nemo --quiet",
            model.display()
        ));
        room.read("a.nemo")
    };
    cell.get_or_init(compile).clone()
}

/// Changes the header of a safetensors file, and its data.
pub fn edit_safetensors(bytes: &mut Vec<u8>, change: impl FnOnce(&mut Map<String, Value>, &mut Vec<u8>)) {
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Map<String, Value> = serde_json::from_slice(header).expect("a header in JSON");
    let mut data = data.to_vec();
    change(&mut header, &mut data);
    let header = serde_json::to_vec(&header).expect("JSON");
    *bytes = [&(header.len() as u64).to_le_bytes(), header.as_slice(), data.as_slice()].concat();
}

/// A list of failures to read through: the best review of their wording is a snapshot.
#[derive(Debug, Default)]
pub struct Review(String);

impl Review {
    /// Adds what a command said.
    pub fn line(&mut self, ran: &Ran) {
        let Ran { line, code, stderr, .. } = ran;
        self.0.push_str(&format!("$ {line}\n{stderr}[exit {code}]\n\n"));
    }

    /// Adds what a command said, under a heading for what its line does not show.
    pub fn add(&mut self, what: &str, ran: &Ran) {
        self.0.push_str(&format!("## {what}\n"));
        self.line(ran);
    }

    /// All of it.
    pub fn text(&self) -> &str {
        self.0.trim_end()
    }
}
