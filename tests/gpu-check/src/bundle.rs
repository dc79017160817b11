//! The files of a bundle's cases: `<sm>.jsonl` with a case a line, `<sm>.bin` with all their bytes, modules of PTX.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nemo_ir::types::Dtype;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::compare::{Tolerance, loaded};
use crate::launch::Prepared;

/// A case, as a line of JSON holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Unique name.
    pub name: String,
    /// The op.
    pub op: String,
    /// File of the module.
    pub module: String,
    /// The kernel's symbol in it.
    pub symbol: String,
    /// How it is launched.
    pub launch: Prepared,
    /// Where the bytes of each room begin in the blob; `None` for what nobody has written before the launch.
    pub initial: Vec<Option<u64>>,
    /// What the launch leaves.
    pub expected: Vec<Expected>,
}

/// What one room holds after a launch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// The room.
    pub room: usize,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// How they are compared.
    pub tolerance: Tolerance,
    /// Where the expected elements, stored as those of the room, begin in the blob.
    pub at: u64,
    /// How many there are.
    pub count: usize,
}

/// Why a bundle cannot be written or read.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A file.
    #[error("`{}`: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that is no case.
    #[error("`{}`, line {line}: {source}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A case that does not fit itself or the blob.
    #[error("`{}`: case `{case}` {what}", file.display())]
    Misfit {
        /// The file.
        file: PathBuf,
        /// The case.
        case: String,
        /// What does not fit.
        what: &'static str,
    },
}

fn of(file: &Path) -> impl FnOnce(io::Error) -> BundleError + '_ {
    move |source| BundleError::File { file: file.to_owned(), source }
}

/// The cases of one target with their bytes.
#[derive(Debug, Default)]
pub struct Cases {
    /// All cases.
    pub cases: Vec<Case>,
    /// All bytes.
    pub blob: Vec<u8>,
    /// Folder of the modules.
    pub folder: PathBuf,
}

impl Cases {
    /// Adds bytes to the blob; where they begin.
    pub fn add(&mut self, bytes: &[u8]) -> u64 {
        let at = self.blob.len() as u64;
        self.blob.extend(bytes);
        at
    }

    /// Writes the cases of a target.
    ///
    /// # Errors
    /// [`BundleError::File`].
    pub fn write(&self, folder: &Path, sm: &str) -> Result<(), BundleError> {
        let file = folder.join(format!("{sm}.bin"));
        fs::write(&file, &self.blob).map_err(of(&file))?;
        let file = folder.join(format!("{sm}.jsonl"));
        let mut text = Vec::new();
        for case in &self.cases {
            serde_json::to_writer(&mut text, case).map_err(|e| of(&file)(e.into()))?;
            text.write_all(b"\n").map_err(of(&file))?;
        }
        fs::write(&file, text).map_err(of(&file))
    }

    /// Reads the cases of a target, and checks that each fits itself and the blob.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn read(folder: &Path, sm: &str) -> Result<Self, BundleError> {
        let file = folder.join(format!("{sm}.bin"));
        let blob = fs::read(&file).map_err(of(&file))?;
        let file = folder.join(format!("{sm}.jsonl"));
        let text = fs::read_to_string(&file).map_err(of(&file))?;
        let mut cases = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let case: Case = serde_json::from_str(line).map_err(|source| BundleError::Line {
                file: file.clone(),
                line: index + 1,
                source,
            })?;
            if let Some(what) = misfit(&case, blob.len() as u64) {
                return Err(BundleError::Misfit { file, case: case.name, what });
            }
            cases.push(case);
        }
        Ok(Self { cases, blob, folder: folder.to_owned() })
    }

    /// Text of a case's module.
    ///
    /// # Errors
    /// [`BundleError::File`].
    pub fn module(&self, case: &Case) -> Result<String, BundleError> {
        let file = self.folder.join(&case.module);
        fs::read_to_string(&file).map_err(of(&file))
    }

    /// The bytes of a room before the launch, if it has any.
    pub fn initial(&self, case: &Case, room: usize) -> Option<&[u8]> {
        let at = case.initial[room]? as usize;
        Some(&self.blob[at..][..case.launch.rooms[room].bytes as usize])
    }

    /// Expected elements; `None` for a dtype that no kernel gives.
    pub fn reference(&self, expected: &Expected) -> Option<Vec<f64>> {
        let bytes = expected.count * expected.dtype.bytes() as usize;
        loaded(&self.blob[expected.at as usize..][..bytes], expected.dtype)
    }
}

/// What of a case does not fit.
fn misfit(case: &Case, blob: u64) -> Option<&'static str> {
    let rooms = &case.launch.rooms;
    let inside = |at: u64, bytes: u64| at.checked_add(bytes).is_some_and(|end| end <= blob);
    if case.initial.len() != rooms.len() {
        return Some("has not one initial place a room");
    }
    if case.initial.iter().zip(rooms).any(|(at, room)| at.is_some_and(|at| !inside(at, room.bytes))) {
        return Some("has bytes beyond the end of the blob");
    }
    if case.launch.args.iter().any(|arg| *arg >= rooms.len()) {
        return Some("has an argument without a room");
    }
    if case.launch.maps.iter().any(|map| map.arg >= case.launch.args.len()) {
        return Some("has a tensor map without an argument");
    }
    if case.expected.is_empty() {
        return Some("expects nothing");
    }
    case.expected.iter().find_map(|expected| {
        let Some(room) = rooms.get(expected.room) else { return Some("expects something of no room") };
        let count = expected.count as u64;
        if count.checked_mul(expected.dtype.bytes()) != Some(room.bytes) {
            return Some("expects another number of elements than its room has");
        }
        (!inside(expected.at, room.bytes)).then_some("expects elements beyond the end of the blob")
    })
}
