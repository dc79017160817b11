use ptx_sim::tensor::mbarrier::{MAX_COUNT, Mbarrier, MbarrierError};

use crate::Random;

#[test]
fn a_phase_completes_when_all_arrived() {
    let mut barrier = Mbarrier::init(3).expect("a count in range");
    let state = barrier.arrive(1).expect("an arrival");
    assert!(!barrier.test_parity(false) && barrier.test_parity(true));
    barrier.arrive(2).expect("two arrivals");
    assert!(barrier.test_parity(false) && !barrier.test_parity(true));
    assert_eq!(barrier.test_state(state), Ok(true));
    assert_eq!(barrier.pending(), 3);
    let state = barrier.arrive(3).expect("all at once");
    assert_eq!(barrier.test_state(state), Ok(true));
    assert!(barrier.test_parity(true));
}

#[test]
fn bytes_on_the_way_hold_the_phase() {
    let mut barrier = Mbarrier::init(1).expect("a count in range");
    barrier.arrive_expect_tx(4096, 1).expect("announced");
    assert!(!barrier.test_parity(false));
    barrier.complete_tx(4000).expect("some came");
    assert!(!barrier.test_parity(false));
    barrier.complete_tx(96).expect("the rest came");
    assert!(barrier.test_parity(false));
}

#[test]
fn bytes_may_come_before_they_are_announced() {
    let mut barrier = Mbarrier::init(1).expect("a count in range");
    barrier.complete_tx(64).expect("an early copy");
    assert_eq!((barrier.tx_count(), barrier.parity()), (-64, false));
    barrier = Mbarrier::decode(barrier.encode()).expect("a barrier");
    assert_eq!(barrier.tx_count(), -64);
    barrier.arrive_expect_tx(64, 1).expect("announced");
    assert!(barrier.test_parity(false));
}

#[test]
fn dropping_out_lowers_the_phases_to_come() {
    let mut barrier = Mbarrier::init(2).expect("a count in range");
    barrier.arrive_drop(1).expect("one drops out");
    assert_eq!((barrier.pending(), barrier.expected()), (1, 1));
    barrier.arrive(1).expect("the other arrives");
    assert_eq!((barrier.pending(), barrier.parity()), (1, true));
    assert_eq!(barrier.arrive_drop(2), Err(MbarrierError::TooManyDropped { count: 2, expected: 1 }));
}

#[test]
fn misuse_is_an_error_and_changes_nothing() {
    assert_eq!(Mbarrier::init(0), Err(MbarrierError::InitCount(0)));
    assert_eq!(Mbarrier::init(MAX_COUNT + 1), Err(MbarrierError::InitCount(MAX_COUNT + 1)));
    assert_eq!(Mbarrier::decode([0; 8]), Err(MbarrierError::Uninitialised(0)));
    assert_eq!(Mbarrier::decode([0xff; 8]), Err(MbarrierError::Uninitialised(u64::MAX)));
    assert_eq!(Mbarrier::decode(Mbarrier::INVALID), Err(MbarrierError::Uninitialised(0)));

    let start = Mbarrier::init(2).expect("a count in range");
    let mut barrier = start;
    assert_eq!(barrier.arrive(0), Err(MbarrierError::ArriveCount(0)));
    assert_eq!(barrier.arrive(3), Err(MbarrierError::TooManyArrivals { count: 3, pending: 2 }));
    assert_eq!(barrier.arrive_expect_tx(8, 3), Err(MbarrierError::TooManyArrivals { count: 3, pending: 2 }));
    assert_eq!(barrier.arrive_no_complete(2), Err(MbarrierError::CompletesPhase));
    assert_eq!(barrier.expect_tx(MAX_COUNT + 1), Err(MbarrierError::TxOverflow(1 << 20)));
    assert_eq!(barrier.complete_tx(u32::MAX), Err(MbarrierError::TxOverflow(-i64::from(u32::MAX))));
    assert_eq!(barrier.test_state(7), Err(MbarrierError::BadState(7)));
    assert_eq!(barrier, start);
    let mut full = Mbarrier::init(MAX_COUNT).expect("a count in range");
    assert_eq!(full.increment_pending(), Err(MbarrierError::PendingOverflow));
    barrier.increment_pending().expect("room");
    assert_eq!((barrier.pending(), barrier.expected()), (3, 2));
}

/// The rules of the ISA in numbers without bounds.
#[derive(Clone, Copy)]
struct Model {
    phase: u64,
    pending: i64,
    expected: i64,
    tx: i64,
}

impl Model {
    fn settle(&mut self) {
        if self.pending == 0 && self.tx == 0 {
            self.phase += 1;
            self.pending = self.expected;
        }
    }
}

#[test]
fn random_histories_agree_with_the_rules() {
    let mut random = Random(30);
    for _ in 0..500 {
        let count = 1 + random.below(20) as i64;
        let mut model = Model { phase: 0, pending: count, expected: count, tx: 0 };
        let mut barrier = Mbarrier::init(count as u32).expect("a count in range");
        for _ in 0..100 {
            let amount = 1 + random.below(4) as u32;
            let signed = i64::from(amount);
            match random.below(4) {
                0 if signed <= model.pending => {
                    let state = barrier.arrive(amount).expect("an arrival");
                    let before = model.phase;
                    model.pending -= signed;
                    model.settle();
                    assert_eq!(barrier.test_state(state), Ok(model.phase != before));
                }
                1 => {
                    barrier.expect_tx(amount).expect("announced");
                    model.tx += signed;
                    model.settle();
                }
                2 => {
                    barrier.complete_tx(amount).expect("came");
                    model.tx -= signed;
                    model.settle();
                }
                _ if signed <= model.pending => {
                    barrier.arrive_expect_tx(amount, amount).expect("announced");
                    model.tx += signed;
                    model.pending -= signed;
                    model.settle();
                }
                _ => {}
            }
            barrier = Mbarrier::decode(barrier.encode()).expect("a barrier");
            assert_eq!(barrier.parity(), model.phase % 2 == 1);
            assert_eq!(
                (i64::from(barrier.pending()), i64::from(barrier.expected()), i64::from(barrier.tx_count())),
                (model.pending, model.expected, model.tx)
            );
        }
    }
}
