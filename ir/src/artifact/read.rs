//! Opening an artifact: nothing in it is believed before its digest is right.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zip::{CompressionMethod, ZipArchive};

use super::{ArtifactError, FORMAT, MANIFEST, MODEL, Manifest, TargetManifest, list, validate};
use crate::plan::Plan;

/// Longest digest text that an error quotes.
const DIGEST_CHARS: usize = 16;

/// An artifact in memory, digests checked.
#[derive(Debug)]
pub struct Artifact {
    file: PathBuf,
    bytes: Vec<u8>,
    entries: BTreeMap<String, Range<usize>>,
    manifest: Manifest,
}

/// One target of an artifact.
#[derive(Debug)]
pub struct Target<'a> {
    /// What the manifest says about it.
    pub manifest: &'a TargetManifest,
    /// Its plan, validated.
    pub plan: Plan,
    /// Its kernels: an ELF object for a CPU, PTX for a GPU.
    pub object: &'a [u8],
    /// A GPU's machine code, where it was assembled.
    pub cubin: Option<&'a [u8]>,
}

/// The record that ends a zip file: its signature, and its length where the file has no comment.
const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;

/// The part of a manifest that every format has.
#[derive(Deserialize)]
struct AnyManifest {
    format: u64,
}

impl Artifact {
    /// Reads the artifact at `path` and checks every digest.
    ///
    /// # Errors
    /// [`ArtifactError`] when the file is no artifact, is damaged, or is of another format.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let read = |source| ArtifactError::Read { file: path.to_owned(), source };
        Self::from_bytes(path, std::fs::read(path).map_err(read)?)
    }

    /// An artifact from its bytes; `file` is what messages call it.
    ///
    /// # Errors
    /// As [`Artifact::open`].
    pub fn from_bytes(file: &Path, bytes: Vec<u8>) -> Result<Self, ArtifactError> {
        let file = file.to_owned();
        let entries = entries(&file, &bytes)?;
        let manifest = manifest(&file, &bytes, &entries)?;
        let artifact = Self { file, bytes, entries, manifest };
        artifact.check_digests()?;
        Ok(artifact)
    }

    /// Where it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Names and sizes of the entries, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, usize)> {
        self.entries.iter().map(|(name, range)| (name.as_str(), range.len()))
    }

    /// Bytes of an entry.
    ///
    /// # Errors
    /// [`ArtifactError::MissingEntry`], which lists the entries there are.
    pub fn entry(&self, name: &str) -> Result<&[u8], ArtifactError> {
        entry(&self.file, &self.bytes, &self.entries, name)
    }

    /// The model description.
    ///
    /// # Errors
    /// [`ArtifactError`] when there is none or it is not UTF-8.
    pub fn model_toml(&self) -> Result<&str, ArtifactError> {
        std::str::from_utf8(self.entry(MODEL)?).map_err(|error| self.malformed(MODEL, error.to_string()))
    }

    /// The target called `name`, its plan parsed and validated.
    ///
    /// # Errors
    /// [`ArtifactError`] when there is no such target (it lists those there are) or its plan is malformed.
    pub fn target(&self, name: &str) -> Result<Target<'_>, ArtifactError> {
        let manifest = self
            .manifest
            .targets
            .iter()
            .find(|target| target.name == name)
            .ok_or_else(|| self.missing_target(name))?;
        let plan: Plan = serde_json::from_slice(self.entry(&manifest.plan)?)
            .map_err(|error| self.malformed(&manifest.plan, error.to_string()))?;
        validate(&plan).map_err(|fault| self.malformed(&manifest.plan, fault.to_string()))?;
        if plan.target != manifest.name {
            let what = format!("the plan is for target `{}`, not `{}`", plan.target, manifest.name);
            return Err(self.malformed(&manifest.plan, what));
        }
        if plan.limits != manifest.limits {
            let what = "the plan's limits are not those of the manifest".to_owned();
            return Err(self.malformed(&manifest.plan, what));
        }
        let cubin = manifest.cubin.as_ref().map(|name| self.entry(name)).transpose()?;
        Ok(Target { manifest, plan, object: self.entry(&manifest.kernels)?, cubin })
    }

    /// What is said of a target that the artifact does not have.
    pub fn missing_target(&self, wanted: &str) -> ArtifactError {
        ArtifactError::MissingTarget {
            file: self.file.clone(),
            wanted: wanted.to_owned(),
            has: list(self.manifest.targets.iter().map(|target| target.name.as_str())),
        }
    }

    /// Address of the file's first byte, to tell where in the file an entry lies.
    #[cfg(test)]
    pub(super) fn bytes_start(&self) -> usize {
        self.bytes.as_ptr() as usize
    }

    fn check_digests(&self) -> Result<(), ArtifactError> {
        for (name, wanted) in &self.manifest.digests {
            let has = blake3::hash(self.entry(name)?).to_hex();
            if has.as_str() != wanted {
                return Err(ArtifactError::Digest {
                    file: self.file.clone(),
                    entry: name.clone(),
                    has: has.chars().take(DIGEST_CHARS).chain("…".chars()).collect(),
                    wanted: wanted.chars().take(DIGEST_CHARS).chain("…".chars()).collect(),
                });
            }
        }
        let unknown =
            self.entries.keys().find(|name| *name != MANIFEST && !self.manifest.digests.contains_key(*name));
        match unknown {
            Some(name) => Err(self.malformed(name, "the manifest gives no digest for it".to_owned())),
            None => Ok(()),
        }
    }

    fn malformed(&self, entry: &str, what: String) -> ArtifactError {
        ArtifactError::Malformed { file: self.file.clone(), entry: entry.to_owned(), what }
    }
}

/// That the record of a zip's end is the end of the file.
fn check_end(bytes: &[u8]) -> Result<(), String> {
    let after = bytes.windows(END.len()).rposition(|window| window == END);
    let after = after.map(|at| bytes.len() - at).and_then(|left| left.checked_sub(END_BYTES));
    match after {
        Some(0) => Ok(()),
        Some(1) => Err("1 byte follows its end".to_owned()),
        Some(count) => Err(format!("{count} bytes follow its end")),
        None => Err("its end is missing".to_owned()),
    }
}

/// Where each entry's data lies.
fn entries(file: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>, ArtifactError> {
    if bytes.is_empty() {
        return Err(ArtifactError::Empty { file: file.to_owned() });
    }
    if !bytes.starts_with(b"PK\x03\x04") {
        return Err(ArtifactError::NotZip { file: file.to_owned() });
    }
    let truncated = |what: String| ArtifactError::Truncated { file: file.to_owned(), what };
    check_end(bytes).map_err(truncated)?;
    // What the zip reader says names its own types, which tells nobody anything.
    let directory = |_| truncated("its directory of entries is damaged".to_owned());
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(directory)?;
    let mut entries = BTreeMap::new();
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(directory)?;
        let name = entry.name().to_owned();
        let malformed = |what: &str| ArtifactError::Malformed {
            file: file.to_owned(),
            entry: name.clone(),
            what: what.to_owned(),
        };
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(malformed("it is compressed or encrypted; entries of an artifact are stored"));
        }
        if entry.compressed_size() != entry.size() {
            return Err(malformed("the zip file gives it two sizes"));
        }
        // Sliced from the file rather than read through the zip reader, so that damage is reported by
        // the digest, which names what was wanted, and not by a checksum. The manifest alone has none.
        let range = entry.data_start().and_then(|start| Some(start..start.checked_add(entry.size())?));
        let range = range.and_then(|range| Some(range.start.try_into().ok()?..range.end.try_into().ok()?));
        match range {
            Some(range) if bytes.get(range.clone()).is_some() => entries.insert(name, range),
            _ => return Err(malformed("it reaches past the end of the file")),
        };
    }
    if entries.contains_key(MANIFEST) {
        let checked = zip.by_name(MANIFEST).map_err(directory)?.read_to_end(&mut Vec::new());
        checked.map_err(|_| ArtifactError::Malformed {
            file: file.to_owned(),
            entry: MANIFEST.to_owned(),
            what: "it is damaged: its CRC-32 is not the one that the zip file gives".to_owned(),
        })?;
    }
    Ok(entries)
}

fn entry<'a>(
    file: &Path,
    bytes: &'a [u8],
    entries: &BTreeMap<String, Range<usize>>,
    name: &str,
) -> Result<&'a [u8], ArtifactError> {
    entries.get(name).and_then(|range| bytes.get(range.clone())).ok_or_else(|| ArtifactError::MissingEntry {
        file: file.to_owned(),
        entry: name.to_owned(),
        has: list(entries.keys().map(String::as_str)),
    })
}

fn manifest(
    file: &Path,
    bytes: &[u8],
    entries: &BTreeMap<String, Range<usize>>,
) -> Result<Manifest, ArtifactError> {
    let json = entry(file, bytes, entries, MANIFEST)?;
    let malformed = |error: serde_json::Error| ArtifactError::Malformed {
        file: file.to_owned(),
        entry: MANIFEST.to_owned(),
        what: error.to_string(),
    };
    // The format alone first: another one may have fields and kinds that this build cannot parse.
    let AnyManifest { format } = serde_json::from_slice(json).map_err(malformed)?;
    match format.cmp(&u64::from(FORMAT)) {
        Ordering::Less => Err(ArtifactError::Older { file: file.to_owned(), has: format }),
        Ordering::Equal => serde_json::from_slice(json).map_err(malformed),
        Ordering::Greater => Err(ArtifactError::Newer { file: file.to_owned(), has: format }),
    }
}
