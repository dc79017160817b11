//! A device as the text of its file.

use std::collections::BTreeMap;

use super::{Device, Efficiency, Peak};

impl Device {
    /// The text of a device file that reads back as this device.
    pub fn to_toml(&self) -> String {
        annotated(self, "", &BTreeMap::new())
    }
}

/// The text of a device file with a comment before it, and one behind some keys: those of tables are written with
/// their table, as in `efficiency.scan`.
pub(crate) fn annotated(device: &Device, header: &str, notes: &BTreeMap<&str, String>) -> String {
    let Device { products_gflop_s: Peak { bf16, f32 }, efficiency, .. } = device;
    let Efficiency { products, scan, attention, elementwise, memory, cache } = efficiency;
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    // The shortest digits that read back as the same number, with a point or an exponent.
    let float = |number: f64| format!("{number:?}");
    let mut lines = vec![
        ("", "name", text(&device.name)),
        ("", "target", text(&device.target)),
        ("", "kind", text(device.kind.name())),
        ("", "units", device.units.to_string()),
        ("", "bandwidth_gb_s", float(device.bandwidth_gb_s)),
        ("", "cache_bandwidth_gb_s", float(device.cache_bandwidth_gb_s)),
        ("", "cache_bytes", device.cache_bytes.to_string()),
        ("", "vector_gflop_s", float(device.vector_gflop_s)),
        ("", "launch_us", float(device.launch_us)),
        ("", "work_space_bytes", device.work_space_bytes.to_string()),
        ("", "registers", device.registers.to_string()),
    ];
    lines.extend(device.memory_bytes.map(|bytes| ("", "memory_bytes", bytes.to_string())));
    lines.extend([
        ("products_gflop_s", "bf16", float(*bf16)),
        ("products_gflop_s", "f32", float(*f32)),
        ("efficiency", "products", float(*products)),
        ("efficiency", "scan", float(*scan)),
        ("efficiency", "attention", float(*attention)),
        ("efficiency", "elementwise", float(*elementwise)),
        ("efficiency", "memory", float(*memory)),
        ("efficiency", "cache", float(*cache)),
    ]);

    let mut out: String = header.lines().map(|line| format!("# {line}\n")).collect();
    let mut current = "";
    for (table, key, value) in lines {
        if table != current {
            out.push_str(&format!("\n[{table}]\n"));
            current = table;
        }
        let full = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        let line = format!("{key} = {value}");
        match notes.get(full.as_str()) {
            Some(note) => out.push_str(&format!("{line:<40}  # {note}\n")),
            None => out.push_str(&format!("{line}\n")),
        }
    }
    out
}
