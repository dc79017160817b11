//! A checkpoint directory: one safetensors file, or an index and its shards.

#![allow(unsafe_code, reason = "files are mapped")]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::Deserialize;

use super::WeightsError;
use super::header::{self, Tensor};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a checkpoint, mapped.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    files: Vec<Shard>,
    /// Where each tensor is: file, and place in it.
    tensors: HashMap<String, (usize, usize)>,
}

/// One mapped file.
#[derive(Debug)]
pub struct Shard {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub map: Mmap,
    /// Its tensors, in the order of their data.
    pub tensors: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Maps the files of a checkpoint directory and checks their headers.
    ///
    /// # Errors
    /// [`WeightsError`] when there is no checkpoint or a file contradicts itself or the index.
    pub fn open(directory: &Path) -> Result<Self, WeightsError> {
        check_directory(directory)?;
        let single = directory.join(SINGLE);
        let index_path = directory.join(INDEX);
        let (names, index) = if single.is_file() {
            (vec![SINGLE.to_owned()], None)
        } else if index_path.is_file() {
            let index = read_index(&index_path)?;
            let mut names: Vec<_> = index.weight_map.values().cloned().collect();
            names.sort_unstable();
            names.dedup();
            (names, Some(index))
        } else {
            return Err(WeightsError::NoCheckpoint { directory: directory.to_owned() });
        };
        let open = |name: &String| {
            open_shard(directory, name).map_err(|error| match error {
                WeightsError::Read { file, source } if index.is_some() => {
                    WeightsError::Shard { file, source }
                }
                error => error,
            })
        };
        let files = names.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let mut tensors = HashMap::new();
        for (file, shard) in files.iter().enumerate() {
            for (at, tensor) in shard.tensors.iter().enumerate() {
                if let Some((first, _)) = tensors.insert(tensor.name.clone(), (file, at)) {
                    return Err(WeightsError::TwoFiles {
                        tensor: tensor.name.clone(),
                        first: files[first].path.clone(),
                        second: shard.path.clone(),
                    });
                }
            }
        }
        for (tensor, name) in index.iter().flat_map(|index| &index.weight_map) {
            let found = tensors.get(tensor).map(|(file, _)| &names[*file]);
            if found != Some(name) {
                return Err(WeightsError::IndexMismatch {
                    index: index_path,
                    tensor: tensor.clone(),
                    file: name.clone(),
                });
            }
        }
        Ok(Self { directory: directory.to_owned(), files, tensors })
    }

    /// Where the checkpoint is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The mapped files.
    pub fn files(&self) -> &[Shard] {
        &self.files
    }

    /// The files, for whoever keeps ranges of them.
    pub fn into_files(self) -> Vec<Shard> {
        self.files
    }

    /// The first of these names that the checkpoint has: the file's place, and the tensor.
    pub fn find(&self, names: &[String]) -> Option<(usize, &Tensor)> {
        let (file, at) = names.iter().find_map(|name| self.tensors.get(name))?;
        Some((*file, &self.files[*file].tensors[*at]))
    }
}

/// That a checkpoint can be at `directory` at all.
///
/// # Errors
/// [`WeightsError`] when nothing is there, or a file.
pub fn check_directory(directory: &Path) -> Result<(), WeightsError> {
    match directory.metadata() {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(WeightsError::NotDirectory { file: directory.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(WeightsError::NoDirectory { directory: directory.to_owned() })
        }
        Err(source) => Err(WeightsError::Read { file: directory.to_owned(), source }),
    }
}

fn read_index(path: &Path) -> Result<Index, WeightsError> {
    let text = std::fs::read(path).map_err(|source| WeightsError::Read { file: path.to_owned(), source })?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|error| WeightsError::Index { file: path.to_owned(), what: error.to_string() })?;
    // A shard is a file beside the index; a path would let an index reach anywhere.
    if let Some(name) =
        index.weight_map.values().find(|name| Path::new(name).file_name() != Some(name.as_ref()))
    {
        let what = format!("`{name}` is not a file name");
        return Err(WeightsError::Index { file: path.to_owned(), what });
    }
    Ok(index)
}

fn open_shard(directory: &Path, name: &str) -> Result<Shard, WeightsError> {
    let path = directory.join(name);
    let read = |source| WeightsError::Read { file: path.clone(), source };
    let file = File::open(&path).map_err(read)?;
    // SAFETY: the mapping is read-only; that nobody truncates a checkpoint while it runs is asked of
    // the user, as every program that maps weights does.
    let map = unsafe { Mmap::map(&file) }.map_err(read)?;
    // Advice; a kernel without huge pages for files says no, and nothing changes.
    let _ = map.advise(memmap2::Advice::HugePage);
    let tensors = header::parse(&map)
        .map_err(|source| WeightsError::Header { file: path.clone(), source: Box::new(source) })?;
    Ok(Shard { path, map, tensors })
}
