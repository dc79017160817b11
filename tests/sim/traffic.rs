//! What a kernel asks of memory, beside what it has to.

use nemo_tests::kernel::Machine;

/// Bytes of an access that a card moves at once.
const SECTOR: f64 = 32.0;
/// Loads of single step inputs, one for each warp, that the smallest kernel may have.
const SCALARS: u64 = 8;

/// Asserts that the last step read and wrote so many bytes and hardly more, in whole sectors and without bank conflicts.
pub fn assert_lean(machine: &Machine, read: usize, written: usize, what: &str) {
    let counts = machine.counts().expect("it ran in the simulator");
    let (loads, stores) = (&counts.global_loads, &counts.global_stores);
    for (name, of, unique, bytes) in [
        ("loads", loads, counts.unique_load_sectors, read),
        ("stores", stores, counts.unique_store_sectors, written),
    ] {
        let ideal = bytes as f64 / SECTOR;
        let partial = of.sectors - of.full_sectors;
        assert!(partial <= of.sectors / 100 + SCALARS, "{what}: {name} use {partial} sectors in part");
        assert!(unique as f64 <= 1.03 * ideal, "{what}: {name} touch {unique} sectors of {ideal}");
        assert!(of.bytes as f64 <= 1.25 * bytes as f64, "{what}: {name} ask for {} bytes", of.bytes);
    }
    let (loads, stores) = (&counts.shared_loads, &counts.shared_stores);
    let (replays, requests) = (loads.replays + stores.replays, loads.requests + stores.requests);
    assert!(replays * 100 <= requests, "{what}: {replays} replays of {requests} accesses to shared memory");
    assert_eq!(counts.local_loads + counts.local_stores, 0, "{what}: local memory is used");
}
