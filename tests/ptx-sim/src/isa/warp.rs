//! Shuffles, votes and reductions across a warp.

use super::data::{Random, case, output, words};
use super::{Case, Param, Target};

const WARP: (&str, &str, Target) = ("warp.ptx", include_str!("ptx/warp.ptx"), Target::Sm80);

pub(super) fn cases() -> Vec<Case> {
    let mut random = Random(600);
    let mixed = std::array::from_fn(|_| random.next() as u32);
    vec![
        shuffles(),
        votes("votes_mixed", mixed),
        votes("votes_all", mixed.map(|value| value | 1)),
        votes("votes_none", mixed.map(|value| value & !1)),
    ]
}

enum Mode {
    Idx,
    Up,
    Down,
    Bfly,
}

/// Source lane and predicate, by the pseudo code of `shfl.sync`.
fn source(mode: &Mode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, mask) = (b & 31, c & 31, c >> 8 & 31);
    let max = (lane & mask) | (clamp & !mask);
    let (j, valid) = match mode {
        Mode::Idx => {
            let j = (lane & mask) | (b & !mask);
            (j, j <= max)
        }
        Mode::Up => (lane.wrapping_sub(b), i64::from(lane) - i64::from(b) >= i64::from(max)),
        Mode::Down => (lane + b, lane + b <= max),
        Mode::Bfly => (lane ^ b, lane ^ b <= max),
    };
    (if valid { j } else { lane }, valid)
}

fn shuffles() -> Case {
    let mut random = Random(601);
    let values: [u32; 32] = std::array::from_fn(|_| random.next() as u32);
    let operands: [u32; 32] = std::array::from_fn(|_| random.below(64) as u32);
    let modes = [
        (Mode::Idx, 31),
        (Mode::Idx, 0x1807),
        (Mode::Up, 0),
        (Mode::Up, 0x1800),
        (Mode::Down, 31),
        (Mode::Down, 0x100f),
        (Mode::Bfly, 31),
        (Mode::Bfly, 0x181f),
    ];
    let results = modes.iter().flat_map(|(mode, c)| {
        let lanes = (0..32).map(|lane| source(mode, lane, operands[lane as usize], *c));
        let moved = lanes.clone().map(|(from, _)| values[from as usize]);
        moved.chain(lanes.map(|(_, valid)| u32::from(valid)))
    });
    let expected = words(results);
    let params = vec![Param::Input(words(values)), Param::Input(words(operands)), output(expected)];
    case("shuffles", WARP, "shuffles", 32, params)
}

fn votes(name: &str, values: [u32; 32]) -> Case {
    let ballot = values.iter().rev().fold(0, |bits: u32, value| bits << 1 | (value & 1));
    let (all, any) = (ballot == u32::MAX, ballot != 0);
    let uniform = all || !any;
    let flags = u32::from(all) | u32::from(any) << 1 | u32::from(uniform) << 2;
    let signed = values.map(|value| value as i32);
    let reductions = [
        values.iter().fold(0u32, |sum, value| sum.wrapping_add(*value)),
        signed.iter().copied().fold(i32::MAX, i32::min) as u32,
        signed.iter().copied().fold(i32::MIN, i32::max) as u32,
        values.iter().copied().fold(u32::MAX, u32::min),
        values.iter().copied().fold(0, u32::max),
        values.iter().fold(u32::MAX, |bits, value| bits & value),
        values.iter().fold(0, |bits, value| bits | value),
        values.iter().fold(0, |bits, value| bits ^ value),
    ];
    let rows = [flags, ballot].into_iter().chain(reductions);
    let expected = words(rows.flat_map(|value| [value; 32]));
    case(name, WARP, "votes", 32, vec![Param::Input(words(values)), output(expected)])
}
