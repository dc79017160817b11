//! Buffers to read, and how large they have to be.

use std::fs;

/// Words of 8 bytes that one turn of the summing loop reads: two cache lines.
pub(super) const BLOCK: usize = 16;

/// Words in the whole blocks of some bytes; one block at least.
pub(super) fn whole_blocks(bytes: u64) -> u64 {
    (bytes / 8 / BLOCK as u64 * BLOCK as u64).max(BLOCK as u64)
}

/// Words to read, written once so that memory stands behind them.
pub(super) fn words(bytes: u64) -> Vec<u64> {
    vec![0x0101_0101; whole_blocks(bytes) as usize]
}

/// Bytes to stream through: what is wanted, or a quarter of the machine's memory where that is less.
pub(super) fn stream_bytes(wanted: u64, machine: Option<u64>) -> u64 {
    machine.map_or(wanted, |machine| wanted.min(machine / 4))
}

/// Bytes of the largest cache of the first core; `None` where the system does not say.
pub(super) fn last_level_cache() -> Option<u64> {
    let folders = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = folders.filter_map(|folder| fs::read_to_string(folder.ok()?.path().join("size")).ok());
    sizes.filter_map(|size| cache_size(&size)).max()
}

/// Reads `32768K`.
fn cache_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(cache_size("32768K\n"), Some(32 << 20));
        assert_eq!(cache_size("260M\n"), Some(260 << 20));
        for text in ["", "K", "0K", "32KK", "-1K", "99999999999999999999K", "18446744073709551615G"] {
            assert_eq!(cache_size(text), None, "{text}");
        }
    }

    #[test]
    fn buffers_are_whole_blocks() {
        assert_eq!([0, 100, 128, 300].map(|bytes| words(bytes).len()), [16, 16, 16, 32]);
        assert_eq!(stream_bytes(100, None), 100);
        assert_eq!([400, 1000, 40].map(|machine| stream_bytes(100, Some(machine))), [100, 100, 10]);
    }
}
