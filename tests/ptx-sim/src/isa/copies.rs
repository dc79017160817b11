//! Asynchronous copies and barriers in shared memory.

use super::data::{Random, case, output, words};
use super::{Case, Param, Target};

const CP_ASYNC: (&str, &str, Target) = ("cp_async.ptx", include_str!("ptx/cp_async.ptx"), Target::Sm80);
const MBARRIER: (&str, &str, Target) = ("mbarrier.ptx", include_str!("ptx/mbarrier.ptx"), Target::Sm90);

pub(super) fn cases() -> Vec<Case> {
    vec![cp_async(), mbarrier_phases(), bulk_copy()]
}

fn cp_async() -> Case {
    let mut random = Random(700);
    let source = random.bytes(512);
    let counts: [u32; 32] = std::array::from_fn(|_| random.below(17) as u32);
    let mut tile = vec![0xff; 2048];
    for (lane, &count) in counts.iter().enumerate() {
        let at = 16 * lane;
        let chunk = &source[at..at + 16];
        tile[at..at + 16].copy_from_slice(chunk);
        // Bytes 4 to 7 stay as they were.
        tile[512 + at..512 + at + 4].copy_from_slice(&chunk[4..8]);
        tile[512 + at + 8..512 + at + 16].copy_from_slice(&chunk[8..]);
        let count = count as usize;
        tile[1024 + at..1024 + at + 16].fill(0);
        tile[1024 + at..1024 + at + count].copy_from_slice(&chunk[..count]);
        tile[1536 + at..1536 + at + 16].copy_from_slice(chunk);
    }
    // Neighbours change places.
    let expected =
        tile.as_chunks::<32>().0.iter().flat_map(|pair| [&pair[16..], &pair[..16]].concat()).collect();
    let params = vec![Param::Input(source), Param::Input(words(counts)), output(expected)];
    case("cp_async", CP_ASYNC, "cp_async", 32, params)
}

fn mbarrier_phases() -> Case {
    // The first thread makes x into 3 x + 1 in each phase; each thread adds x, and a million for the phase of
    // its arrival that completed.
    let (_, sum) = (0..5).fold((0, 0), |(x, sum), _| (3 * x + 1, sum + 3 * x + 1 + 1_000_000));
    case("mbarrier_phases", MBARRIER, "mbarrier_phases", 64, vec![output(words([sum; 64]))])
}

fn bulk_copy() -> Case {
    let source = Random(701).bytes(4096);
    let mut expected = source.clone();
    for group in expected.as_chunks_mut::<32>().0 {
        group[..4].iter_mut().for_each(|byte| *byte = !*byte);
    }
    case("bulk_copy", MBARRIER, "bulk_copy", 128, vec![Param::Input(source), output(expected)])
}
