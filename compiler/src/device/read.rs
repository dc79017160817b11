//! Device files: TOML to facts, with the line and the key of what is wrong.

use nemo_kernels::target::{HostTarget, Sm};
use serde::Deserialize;
use toml::Spanned;

use super::{Device, DeviceError, Efficiency, Kind, Peak};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    target: Spanned<String>,
    kind: Kind,
    units: Spanned<u64>,
    bandwidth_gb_s: Spanned<f64>,
    cache_bandwidth_gb_s: Spanned<f64>,
    cache_bytes: Spanned<u64>,
    products_gflop_s: PeakFile,
    vector_gflop_s: Spanned<f64>,
    launch_us: Spanned<f64>,
    work_space_bytes: Spanned<u64>,
    registers: Spanned<u64>,
    memory_bytes: Option<Spanned<u64>>,
    efficiency: EfficiencyFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeakFile {
    bf16: Spanned<f64>,
    f32: Spanned<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EfficiencyFile {
    products: Spanned<f64>,
    scan: Spanned<f64>,
    attention: Spanned<f64>,
    elementwise: Spanned<f64>,
    memory: Spanned<f64>,
    cache: Spanned<f64>,
}

/// A text with its name, for messages.
struct Source<'a> {
    text: &'a str,
    file: &'a str,
}

impl Device {
    /// Reads the text of a device file; `file` is its name in messages.
    ///
    /// # Errors
    /// [`DeviceError::Wrong`].
    pub fn parse(text: &str, file: &str) -> Result<Self, DeviceError> {
        let source = Source { text, file };
        let raw: File = toml::from_str(text).map_err(|error| source.refused(&error))?;
        let PeakFile { bf16, f32 } = &raw.products_gflop_s;
        let share = &raw.efficiency;
        let device = Self {
            units: source.count("units", &raw.units)?,
            bandwidth_gb_s: source.rate("bandwidth_gb_s", &raw.bandwidth_gb_s)?,
            cache_bandwidth_gb_s: source.rate("cache_bandwidth_gb_s", &raw.cache_bandwidth_gb_s)?,
            cache_bytes: source.count("cache_bytes", &raw.cache_bytes)?,
            products_gflop_s: Peak {
                bf16: source.rate("products_gflop_s.bf16", bf16)?,
                f32: source.rate("products_gflop_s.f32", f32)?,
            },
            vector_gflop_s: source.rate("vector_gflop_s", &raw.vector_gflop_s)?,
            launch_us: source.rate("launch_us", &raw.launch_us)?,
            work_space_bytes: source.count("work_space_bytes", &raw.work_space_bytes)?,
            registers: source.count("registers", &raw.registers)?,
            memory_bytes: match &raw.memory_bytes {
                Some(bytes) => Some(source.count("memory_bytes", bytes)?),
                None => None,
            },
            efficiency: Efficiency {
                products: source.share("efficiency.products", &share.products)?,
                scan: source.share("efficiency.scan", &share.scan)?,
                attention: source.share("efficiency.attention", &share.attention)?,
                elementwise: source.share("efficiency.elementwise", &share.elementwise)?,
                memory: source.share("efficiency.memory", &share.memory)?,
                cache: source.share("efficiency.cache", &share.cache)?,
            },
            kind: raw.kind,
            name: source.name(&raw.name)?,
            target: source.target(&raw.target, raw.kind)?,
        };
        if device.kind == Kind::Gpu && device.memory_bytes.is_none() {
            return Err(
                source.wrong(0, "`memory_bytes` is missing, which only a CPU may leave out".to_owned())
            );
        }
        Ok(device)
    }
}

impl Source<'_> {
    /// An error at a byte of the text.
    fn wrong(&self, at: usize, what: String) -> DeviceError {
        let before = self.text.as_bytes().iter().take(at);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        DeviceError::Wrong { file: self.file.to_owned(), line, what }
    }

    /// What the TOML reader refused.
    fn refused(&self, error: &toml::de::Error) -> DeviceError {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().trim().replace('\n', ", ");
        let key = self.key_at(at);
        // The reader names keys that are missing or unknown, but not those of a wrong type.
        let named = message.contains("field `");
        self.wrong(at, if named || key.is_empty() { message } else { format!("`{key}`: {message}") })
    }

    /// The key of the line that a byte is in, with its table; empty where there is none.
    fn key_at(&self, at: usize) -> String {
        let start = self.text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |line| line + 1);
        let line = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let Some((key, _)) = line.split_once('=') else { return String::new() };
        let before = self.text.get(..start).unwrap_or_default();
        let table = before.lines().rev().find_map(|line| line.trim().strip_prefix('[')?.split(']').next());
        table.map_or_else(|| key.trim().to_owned(), |table| format!("{}.{}", table.trim(), key.trim()))
    }

    fn count(&self, key: &str, value: &Spanned<u64>) -> Result<u64, DeviceError> {
        match *value.get_ref() {
            0 => Err(self.wrong(value.span().start, format!("`{key}` is 0; it must be 1 or more"))),
            count => Ok(count),
        }
    }

    fn rate(&self, key: &str, value: &Spanned<f64>) -> Result<f64, DeviceError> {
        let number = *value.get_ref();
        if number.is_finite() && number > 0.0 {
            return Ok(number);
        }
        Err(self.wrong(value.span().start, format!("`{key}` is {number:?}; it must be finite and above 0")))
    }

    fn share(&self, key: &str, value: &Spanned<f64>) -> Result<f64, DeviceError> {
        let number = *value.get_ref();
        if number > 0.0 && number <= 1.0 {
            return Ok(number);
        }
        Err(self
            .wrong(value.span().start, format!("`{key}` is {number:?}; it must be above 0 and at most 1")))
    }

    fn name(&self, value: &Spanned<String>) -> Result<String, DeviceError> {
        let name = value.get_ref();
        if name.trim().is_empty() || name.chars().any(char::is_control) {
            return Err(self.wrong(value.span().start, "`name` must be one line of text".to_owned()));
        }
        Ok(name.clone())
    }

    fn target(&self, value: &Spanned<String>, kind: Kind) -> Result<String, DeviceError> {
        let target = value.get_ref();
        let level = |name: &str| HostTarget::parse(name).is_ok_and(|parsed| parsed.level().name() == name);
        let (known, wanted) = match kind {
            Kind::Gpu => {
                (Sm::ALL.iter().any(|sm| sm.name() == target.as_str()), "sm_86 or sm_90, since `kind` is gpu")
            }
            Kind::Cpu => (level(target), "x86-64-v3 or x86-64-v4, without features, since `kind` is cpu"),
        };
        if known {
            return Ok(target.clone());
        }
        Err(self.wrong(value.span().start, format!("`target` is {target:?}; it must be {wanted}")))
    }
}
