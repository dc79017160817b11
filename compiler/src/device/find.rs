//! Devices by name.

use std::path::Path;

use nemo_kernels::target::HostTarget;

use super::{Device, DeviceError, machine_memory};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../devices/", $name, ".toml")))),*]
    };
}

/// Name and source of each file. Where two devices run one target, the first stands for it.
const FILES: &[(&str, &str)] = files!["a10g", "h100", "h200", "x86-64-v3", "x86-64-v4"];

impl Device {
    /// The names of the built-in devices.
    pub fn builtin_names() -> Vec<&'static str> {
        FILES.iter().map(|(name, _)| *name).collect()
    }

    /// A built-in device; `None` when there is none of this name. That every built-in file parses is held by a test.
    pub fn builtin(name: &str) -> Option<Self> {
        let (name, source) = FILES.iter().find(|(known, _)| *known == name)?;
        Self::parse(source, &format!("{name}.toml")).ok()
    }

    /// The built-in device that stands for a compile target, whatever features the target's name appends.
    pub fn for_target(target: &str) -> Option<Self> {
        let level = target.split('+').next().unwrap_or(target);
        Self::builtin_names().into_iter().filter_map(Self::builtin).find(|device| device.target == level)
    }

    /// This machine: the built-in device of its level, with the memory that the system reports.
    ///
    /// # Errors
    /// [`DeviceError::Host`] below the lowest level.
    pub fn host() -> Result<Self, DeviceError> {
        let target = HostTarget::detect()?;
        let level = target.level().name();
        let device = Self::for_target(level).ok_or_else(|| unknown(level))?;
        Ok(Self { name: "host".to_owned(), memory_bytes: machine_memory(), ..device })
    }

    /// Reads a device file.
    ///
    /// # Errors
    /// [`DeviceError::Unreadable`] and [`DeviceError::Wrong`].
    pub fn read(path: &Path) -> Result<Self, DeviceError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &file),
            Err(error) => Err(DeviceError::Unreadable { file, why: error.to_string() }),
        }
    }

    /// `host`, a built-in device, or the path of a device file. A built-in name wins over a file of that name, which
    /// `./NAME` still reaches.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn find(name: &str) -> Result<Self, DeviceError> {
        if name == "host" {
            return Self::host();
        }
        if let Some(device) = Self::builtin(name) {
            return Ok(device);
        }
        let path = Path::new(name);
        // What can only be meant as a file gets the reason why it could not be read.
        if path.exists() || path.extension().is_some_and(|extension| extension == "toml") {
            return Self::read(path);
        }
        Err(unknown(name))
    }
}

fn unknown(name: &str) -> DeviceError {
    DeviceError::Unknown { name: name.to_owned(), hint: hint(name) }
}

/// The name that is near, or all of them.
fn hint(name: &str) -> String {
    let wanted = name.to_lowercase();
    let all = Device::builtin_names();
    // A compile target, or a product's whole name such as `NVIDIA-H100-SXM`.
    let meant = Device::for_target(&wanted).map(|device| device.name);
    let part = |known: &&&str| wanted.contains(**known);
    let distance = |known: &&&str| strsim::damerau_levenshtein(&wanted, known);
    let near = || all.iter().min_by_key(distance).filter(|known| distance(known) <= known.len() / 3);
    let close = meant.or_else(|| all.iter().find(part).or_else(near).map(|known| (*known).to_owned()));
    match close {
        Some(known) => format!("did you mean `{known}`?"),
        None => {
            let all: Vec<_> = all.iter().map(|known| format!("`{known}`")).collect();
            format!("built in are {}, and `host` is this machine", all.join(", "))
        }
    }
}
