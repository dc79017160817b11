//! Tests that run generated code on this machine's CPU.

mod commands;
mod drawn;
mod forms;
mod golden;
#[path = "../kernels/mod.rs"]
mod kernels;
mod stack;
mod trained;

use nemo_kernels::target::HostTarget;
use nemo_tests::kernel::Backend;

/// The targets that code can be run for here.
fn targets() -> Vec<HostTarget> {
    let host = HostTarget::detect().expect("tests need at least x86-64-v3");
    let has = host.cpu_features();
    let mut targets: Vec<_> = ["x86-64-v3", "x86-64-v4"]
        .iter()
        .map(|name| HostTarget::parse(name).expect("a known name"))
        .filter(|target| target.cpu_features().iter().all(|feature| has.contains(feature)))
        .collect();
    if !targets.contains(&host) {
        targets.push(host);
    }
    targets
}

/// What kernels are tested on here.
fn backends() -> Vec<Backend> {
    targets().into_iter().map(Backend::Host).collect()
}

/// Those of them that run steps of all sizes by one kernel.
fn steady_backends() -> Vec<Backend> {
    backends()
}
