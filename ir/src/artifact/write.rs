//! Packing an artifact.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::{
    ArtifactError, Contents, FORMAT, MANIFEST, MODEL, Manifest, Needs, TargetManifest, validate, write_whole,
};

/// Alignment of every entry's data in the file.
const ALIGNMENT: u16 = 64;

/// Writes an artifact to `path`.
///
/// # Errors
/// [`ArtifactError`] when the contents are inconsistent or the file cannot be written.
pub fn write(path: &Path, contents: &Contents) -> Result<(), ArtifactError> {
    let bytes = to_bytes(contents)?;
    write_whole(path, &bytes).map_err(|source| ArtifactError::Write { file: path.to_owned(), source })
}

/// The bytes of an artifact; the same contents give the same bytes.
///
/// # Errors
/// [`ArtifactError`] when the contents are inconsistent.
pub fn to_bytes(contents: &Contents) -> Result<Vec<u8>, ArtifactError> {
    let mut entries: Vec<(String, Vec<u8>)> =
        vec![(MODEL.to_owned(), contents.model_toml.clone().into_bytes())];
    let mut targets: Vec<TargetManifest> = Vec::new();
    for target in &contents.targets {
        let name = checked_name(&target.name)?;
        if targets.iter().any(|other| other.name == name) {
            return Err(ArtifactError::Contents(format!("target `{name}` is there twice")));
        }
        if target.plan.target != name {
            let plan = &target.plan.target;
            return Err(ArtifactError::Contents(format!("the plan of target `{name}` is for `{plan}`")));
        }
        validate(&target.plan)
            .map_err(|fault| ArtifactError::Contents(format!("target `{name}`: {fault}")))?;
        let mut fused = Vec::new();
        for (tail, text) in &target.fused {
            let entry = format!("fused/{name}/{}.txt", checked_name(tail)?);
            entries.push((entry.clone(), text.clone().into_bytes()));
            fused.push(entry);
        }
        let explain = target.explain.as_ref().map(|json| {
            let entry = format!("explain/{name}.json");
            entries.push((entry.clone(), json.clone().into_bytes()));
            entry
        });
        let plan = format!("plan/{name}.json");
        let json = serde_json::to_vec(&target.plan)
            .map_err(|error| ArtifactError::Contents(format!("target `{name}`: {error}")))?;
        entries.push((plan.clone(), json));
        let extension = match target.needs {
            Needs::Host { .. } => "o",
            Needs::Cuda(_) => "ptx",
        };
        let kernels = format!("kernels/{name}.{extension}");
        entries.push((kernels.clone(), target.object.clone()));
        let cubin = target.cubin.as_ref().map(|cubin| {
            let entry = format!("kernels/{name}.cubin");
            entries.push((entry.clone(), cubin.clone()));
            entry
        });
        targets.push(TargetManifest {
            name: name.to_owned(),
            needs: target.needs.clone(),
            limits: target.plan.limits,
            plan,
            kernels,
            cubin,
            fused,
            explain,
        });
    }
    let digests: BTreeMap<_, _> = entries
        .iter()
        .map(|(name, bytes)| (name.clone(), blake3::hash(bytes).to_hex().to_string()))
        .collect();
    if digests.len() != entries.len() {
        return Err(ArtifactError::Contents("two fused graphs of a target have one name".to_owned()));
    }
    let manifest = Manifest {
        format: FORMAT,
        model: contents.model.clone(),
        compiler: contents.compiler.clone(),
        weights: contents.weights,
        activations: contents.activations,
        targets,
        digests,
    };
    let mut json = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| ArtifactError::Contents(format!("the manifest: {error}")))?;
    json.push(b'\n');
    entries.insert(0, (MANIFEST.to_owned(), json));
    pack(&entries)
}

/// A zip of these entries, in this order.
pub(super) fn pack(entries: &[(String, Vec<u8>)]) -> Result<Vec<u8>, ArtifactError> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
        .with_alignment(ALIGNMENT);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), options)
            .map_err(|error| ArtifactError::Contents(format!("entry `{name}`: {error}")))?;
        zip.write_all(bytes).map_err(|error| ArtifactError::Contents(format!("entry `{name}`: {error}")))?;
    }
    let packed = zip.finish().map_err(|error| ArtifactError::Contents(error.to_string()))?;
    Ok(packed.into_inner())
}

fn checked_name(name: &str) -> Result<&str, ArtifactError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
        return Err(ArtifactError::Contents(format!("`{name}` cannot be part of an entry name")));
    }
    Ok(name)
}
