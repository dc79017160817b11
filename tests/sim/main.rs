//! Tests that run generated GPU code in the simulator, on any machine.

mod attention;
mod bundle;
mod golden;
mod head;
#[path = "../kernels/mod.rs"]
mod kernels;
mod linear;
mod norm;
mod scan;
mod sizes;
mod tiles;
mod traffic;

use nemo_ir::plan::Phase;
use nemo_kernels::target::Sm;
use nemo_tests::kernel::Backend;

/// What kernels are tested on here.
fn backends() -> Vec<Backend> {
    let both = |sm| [Phase::Decode, Phase::Prefill].map(|phase| Backend::Sim(sm, phase));
    Sm::ALL.into_iter().flat_map(both).collect()
}

/// Those of them that run steps of all sizes by one kernel.
fn steady_backends() -> Vec<Backend> {
    backends().into_iter().filter(|backend| matches!(backend, Backend::Sim(_, Phase::Prefill))).collect()
}
