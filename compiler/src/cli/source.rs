//! MODEL: a built-in name, the path of a model file, or a checkpoint directory.

use std::path::Path;

use nemo_models::{Model, builtin_names, import_hf};

use super::{CliError, read_text};

/// Finds and reads a model. A built-in name wins over a file of that name, which `./NAME` still reaches.
pub(super) fn model(name: &str) -> Result<Model, CliError> {
    if let Some(model) = Model::builtin(name) {
        return Ok(model);
    }
    if name.is_empty() {
        return Err(CliError::EmptyModel);
    }
    let path = Path::new(name);
    if path.is_dir() {
        return checkpoint(path);
    }
    // What can only be meant as a file gets the reason why it could not be read.
    if path.exists() || path.extension().is_some_and(|extension| extension == "toml") {
        return file(path);
    }
    Err(CliError::UnknownModel { name: name.to_owned(), hint: hint(name) })
}

/// Reads a model file.
pub(super) fn file(path: &Path) -> Result<Model, CliError> {
    // Read as TOML, every line of it would be a mistake.
    if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
        return Err(CliError::ConfigFile(path.to_owned()));
    }
    let source = read_text(path)?;
    Model::parse_toml(&source, &path.display().to_string()).map_err(CliError::Diagnostics)
}

/// Imports the configuration of a checkpoint directory; the model is named after the directory.
pub(super) fn checkpoint(dir: &Path) -> Result<Model, CliError> {
    let config = dir.join("config.json");
    if dir.is_file() {
        return Err(CliError::NoDirectory(dir.to_owned()));
    }
    if dir.is_dir() && !config.is_file() {
        return Err(CliError::NoConfig(dir.to_owned()));
    }
    let text = read_text(&config)?;
    Ok(import_hf(&text, &config.display().to_string(), &directory_name(dir))?)
}

fn directory_name(dir: &Path) -> String {
    // `.` and links have the name of what they stand for.
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = real.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = name.chars().map(|c| if legal(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "model".to_owned() } else { name.to_owned() }
}

/// The built-in names that are near, or all of them.
fn hint(name: &str) -> String {
    // Names on the hub are like `nvidia/Llama-3_3-Nemotron-Super-49B-v1_5`.
    let wanted =
        name.trim_end_matches('/').rsplit('/').next().unwrap_or(name).to_lowercase().replace('_', ".");
    let wanted = wanted.strip_prefix("nvidia-").unwrap_or(&wanted);
    let distance = |known: &str| strsim::damerau_levenshtein(wanted, known);
    let near = |known: &&str| {
        let part = wanted.len() >= 3 && known.contains(wanted);
        part || wanted.contains(known) || distance(known) <= wanted.len().min(known.len()) / 4
    };
    let all = builtin_names();
    let mut close: Vec<_> = all.iter().copied().filter(near).collect();
    close.sort_by_key(|known| distance(known));
    close.truncate(4);
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match close.as_slice() {
        [] => format!("built in are {}", quoted(&all)),
        [one] => format!("did you mean `{one}`?"),
        many if distance(many[0]) == 0 => format!("did you mean `{}`?", many[0]),
        many => format!("did you mean one of {}?", quoted(many)),
    }
}
