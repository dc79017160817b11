//! Brings mapped weights into memory before the first step, with a progress bar.

#![allow(unsafe_code, reason = "advice on mapped ranges")]

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::device::host::memory;
use crate::device::human_bytes;

/// Bytes brought in between two looks at the bar.
pub(super) const CHUNK: usize = 64 << 20;

const PAGE: usize = 4096;

/// Whether loading shows how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// A bar on standard error, where that is a terminal.
    Bar,
    /// Nothing.
    #[default]
    Silent,
}

/// Reads ranges of mapped files into memory. Where they do not fit they stay on disk, for every page read
/// would push another out; whoever watches the progress is told.
pub(super) fn populate<'a>(ranges: impl Iterator<Item = &'a [u8]>, progress: Progress) {
    let ranges: Vec<_> = ranges.collect();
    let total: u64 = ranges.iter().map(|range| range.len() as u64).sum();
    if let Some(available) = memory::available().filter(|available| total > *available) {
        if progress == Progress::Bar {
            let (total, available) = (human_bytes(total), human_bytes(available));
            eprintln!(
                "note: {total} of weights and {available} of free memory: each step will read from disk"
            );
        }
        return;
    }
    let bar = bar("loading", total, progress);
    for range in &ranges {
        // The whole range first, so that the disk reads ahead of the touching.
        advise(range, libc::MADV_WILLNEED);
        for chunk in range.chunks(CHUNK) {
            if !advise(chunk, libc::MADV_POPULATE_READ) {
                touch(chunk);
            }
            bar.inc(chunk.len() as u64);
        }
    }
    bar.finish_and_clear();
}

/// A bar over bytes, where there is somebody to see it.
pub(super) fn bar(verb: &'static str, total: u64, progress: Progress) -> ProgressBar {
    if progress == Progress::Silent || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{msg} {bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style).with_message(verb),
        Err(_) => bar,
    }
}

/// Gives the system advice on the pages of a range; whether it was taken.
pub(super) fn advise(range: &[u8], advice: libc::c_int) -> bool {
    let start = range.as_ptr() as usize;
    let first = start / PAGE * PAGE;
    // SAFETY: every page of the range is mapped, since the range is a live slice of a mapping of a
    // file; no advice used here changes what it holds.
    unsafe { libc::madvise(first as *mut libc::c_void, start + range.len() - first, advice) == 0 }
}

/// Reads one byte a page.
fn touch(range: &[u8]) {
    for page in range.chunks(PAGE) {
        std::hint::black_box(page.first());
    }
}
