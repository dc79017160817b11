//! Bank conflicts of shared memory: 32 banks of 4 bytes.

/// Lanes that are served together, by bytes per lane.
fn lanes_per_phase(bytes: usize) -> usize {
    match bytes {
        0..=4 => 32,
        8 => 16,
        _ => 8,
    }
}

/// Passes that an access needs, and passes that it would need without conflicts. Lanes that ask for the same
/// word share it.
pub(crate) fn wavefronts(offsets: &[usize; 32], mask: u32, bytes: usize) -> (u64, u64) {
    let lanes = lanes_per_phase(bytes);
    let words = bytes.div_ceil(4);
    let (mut needed, mut ideal) = (0, 0);
    for phase in 0..32 / lanes {
        let first = phase * lanes;
        let of_phase = if lanes == 32 { mask } else { (mask >> first) & ((1 << lanes) - 1) };
        if of_phase == 0 {
            continue;
        }
        ideal += 1;
        needed += passes(&offsets[first..first + lanes], of_phase, words);
    }
    (needed, ideal)
}

fn passes(offsets: &[usize], mask: u32, words: usize) -> u64 {
    let mut held = [usize::MAX; 32];
    let mut conflict = false;
    for (lane, &offset) in offsets.iter().enumerate() {
        if mask >> lane & 1 == 0 {
            continue;
        }
        for word in offset / 4..offset / 4 + words {
            let bank = &mut held[word % 32];
            conflict |= *bank != usize::MAX && *bank != word;
            *bank = word;
        }
    }
    if conflict { conflicting(offsets, mask, words) } else { 1 }
}

/// Most distinct words of one bank.
fn conflicting(offsets: &[usize], mask: u32, words: usize) -> u64 {
    let mut asked = [0usize; 32];
    let mut count = 0;
    for (lane, &offset) in offsets.iter().enumerate() {
        if mask >> lane & 1 == 1 {
            for word in offset / 4..offset / 4 + words {
                asked[count] = word;
                count += 1;
            }
        }
    }
    let asked = &mut asked[..count];
    asked.sort_unstable();
    let mut per_bank = [0u64; 32];
    for (at, &word) in asked.iter().enumerate() {
        if at == 0 || asked[at - 1] != word {
            per_bank[word % 32] += 1;
        }
    }
    per_bank.into_iter().max().unwrap_or(1)
}
