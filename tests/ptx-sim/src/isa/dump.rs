//! Cases as files, for programs that run them elsewhere: the modules, the bytes of each parameter, and
//! `cases.json`, which says what belongs together.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;

use super::{Case, Comparison, Param, Target};
use crate::tensor::swizzle::Swizzle;
use crate::tensor::tma_map::TensorSpec;

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
pub struct DumpError {
    /// Which file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

#[derive(Serialize)]
struct CaseEntry<'a> {
    name: &'a str,
    ptx: &'a str,
    kernel: &'a str,
    target: Target,
    grid: u32,
    block: u32,
    params: Vec<ParamEntry>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum ParamEntry {
    Input { bytes: String },
    Output { initial: String, expected: String, comparison: Comparison },
    Tensor { buffer: usize, spec: SpecEntry },
    Value { hex: String },
}

/// Arguments of `cuTensorMapEncodeTiled`, by the names and numbers of the driver API.
#[derive(Serialize)]
struct SpecEntry {
    data_type: String,
    rank: usize,
    offset: u64,
    dims: Vec<u64>,
    strides: Vec<u64>,
    box_dims: Vec<u32>,
    element_strides: Vec<u32>,
    swizzle_bytes: u32,
    fill: String,
}

/// Writes all cases into a folder, which is made if need be. Returns how many there are.
pub fn dump(cases: &[Case], folder: &Path) -> Result<usize, DumpError> {
    fs::create_dir_all(folder).map_err(|source| DumpError { path: folder.to_owned(), source })?;
    let mut entries = Vec::with_capacity(cases.len());
    for case in cases {
        write(folder, case.file, case.ptx.as_bytes())?;
        let params = case.params.iter().enumerate();
        let params =
            params.map(|(index, param)| write_param(folder, &format!("{}.{index}", case.name), param));
        entries.push(CaseEntry {
            name: &case.name,
            ptx: case.file,
            kernel: case.kernel,
            target: case.target,
            grid: case.grid,
            block: case.block,
            params: params.collect::<Result<_, _>>()?,
        });
    }
    let table = serde_json::to_vec_pretty(&entries)
        .map_err(|error| DumpError { path: folder.join("cases.json"), source: error.into() })?;
    write(folder, "cases.json", &table)?;
    Ok(cases.len())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<String, DumpError> {
    let path = folder.join(name);
    fs::write(&path, bytes).map_err(|source| DumpError { path, source })?;
    Ok(name.to_owned())
}

fn write_param(folder: &Path, stem: &str, param: &Param) -> Result<ParamEntry, DumpError> {
    Ok(match param {
        Param::Input(bytes) => ParamEntry::Input { bytes: write(folder, &format!("{stem}.bin"), bytes)? },
        Param::Output { initial, expected, comparison } => ParamEntry::Output {
            initial: write(folder, &format!("{stem}.initial.bin"), initial)?,
            expected: write(folder, &format!("{stem}.expected.bin"), expected)?,
            comparison: *comparison,
        },
        Param::Tensor { buffer, spec } => ParamEntry::Tensor { buffer: *buffer, spec: spec_entry(spec) },
        Param::Value(bytes) => {
            ParamEntry::Value { hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
        }
    })
}

fn spec_entry(spec: &TensorSpec) -> SpecEntry {
    let rank = spec.rank;
    SpecEntry {
        data_type: format!("{:?}", spec.dtype).to_lowercase(),
        rank,
        offset: spec.address,
        dims: spec.dims[..rank].to_vec(),
        strides: spec.strides[..rank - 1].to_vec(),
        box_dims: spec.box_dims[..rank].to_vec(),
        element_strides: spec.element_strides[..rank].to_vec(),
        swizzle_bytes: if spec.swizzle == Swizzle::None { 0 } else { spec.swizzle.span() },
        fill: format!("{:?}", spec.fill).to_lowercase(),
    }
}
