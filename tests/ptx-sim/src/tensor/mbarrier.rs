//! The state of an `mbarrier` object in its eight bytes of shared memory.
//!
//! "Contents of the mbarrier object" of the PTX ISA: the current phase, the arrivals still pending in it, the
//! arrivals expected in the next one, and the tx-count, the bytes of asynchronous copies still on the way. A
//! phase completes when no arrival is pending and the tx-count is zero; then the phase number grows by one and
//! the expected arrivals become pending. The layout of the 64 bits is this simulator's own, as the ISA calls it
//! opaque:
//!
//! | bits | content |
//! | --- | --- |
//! | 0–19 | pending arrivals |
//! | 20–39 | expected arrivals |
//! | 40–60 | tx-count, two's complement |
//! | 61 | parity of the phase |
//! | 62–63 | `10`, so that neither zeros nor ones pass for a barrier |

/// The largest count of arrivals, and the largest magnitude of the tx-count.
pub const MAX_COUNT: u32 = (1 << 20) - 1;

const TX_BITS: u32 = 21;
const TAG: u64 = 0b10;

/// What a program did wrong with a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MbarrierError {
    /// The bytes are not a barrier.
    #[error("no mbarrier was initialised here: the eight bytes are {0:#018x}")]
    Uninitialised(u64),
    /// The count of `mbarrier.init` is out of range.
    #[error("mbarrier.init takes a count of 1 to {MAX_COUNT}, found {0}")]
    InitCount(u32),
    /// A count of arrivals is zero or too large.
    #[error("an arrival counts for 1 to {MAX_COUNT}, found {0}")]
    ArriveCount(u32),
    /// More arrivals than are pending.
    #[error("{count} arrive at an mbarrier that waits for {pending} in this phase")]
    TooManyArrivals {
        /// Arrivals of the instruction.
        count: u32,
        /// Arrivals that were pending.
        pending: u32,
    },
    /// More arrivals dropped than are expected.
    #[error("{count} drop out of an mbarrier that expects {expected} arrivals a phase")]
    TooManyDropped {
        /// Arrivals of the instruction.
        count: u32,
        /// Arrivals expected in the phases to come.
        expected: u32,
    },
    /// Pending arrivals beyond the range.
    #[error("an mbarrier cannot wait for more than {MAX_COUNT} arrivals")]
    PendingOverflow,
    /// The tx-count leaves its range.
    #[error("the tx-count of an mbarrier lies within {MAX_COUNT} of zero, here it would become {0}")]
    TxOverflow(i64),
    /// `.noComplete` on an arrival that completes the phase.
    #[error("mbarrier.arrive.noComplete completes the phase here")]
    CompletesPhase,
    /// The state of a wait is not one that an arrival gave.
    #[error("the state {0:#018x} is not one that mbarrier.arrive returned")]
    BadState(u64),
}

/// A barrier. [`Mbarrier::decode`] reads it from shared memory, [`Mbarrier::encode`] gives the bytes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mbarrier {
    pending: u32,
    expected: u32,
    tx: i32,
    odd: bool,
}

impl Mbarrier {
    /// `mbarrier.init`: phase 0, `count` arrivals pending and expected, tx-count 0.
    pub fn init(count: u32) -> Result<Self, MbarrierError> {
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(MbarrierError::InitCount(count));
        }
        Ok(Self { pending: count, expected: count, tx: 0, odd: false })
    }

    /// The bytes that `mbarrier.inval` leaves: any use as a barrier is an error after it.
    pub const INVALID: [u8; 8] = [0; 8];

    /// Reads a barrier.
    pub fn decode(bytes: [u8; 8]) -> Result<Self, MbarrierError> {
        let bits = u64::from_le_bytes(bytes);
        let barrier = Self {
            pending: bits as u32 & MAX_COUNT,
            expected: (bits >> 20) as u32 & MAX_COUNT,
            // The sign bit of the field moves to the top and back.
            tx: ((bits >> 40) as u32).wrapping_shl(32 - TX_BITS) as i32 >> (32 - TX_BITS),
            odd: bits >> 61 & 1 == 1,
        };
        if bits >> 62 != TAG || barrier.is_complete() || barrier.tx.unsigned_abs() > MAX_COUNT {
            return Err(MbarrierError::Uninitialised(bits));
        }
        Ok(barrier)
    }

    /// The eight bytes in shared memory.
    pub fn encode(self) -> [u8; 8] {
        self.state().to_le_bytes()
    }

    /// Arrivals that this phase still waits for: `mbarrier.pending_count` of a state.
    pub fn pending(self) -> u32 {
        self.pending
    }

    /// Arrivals of each phase to come.
    pub fn expected(self) -> u32 {
        self.expected
    }

    /// Bytes that this phase still waits for; negative when they came before they were announced.
    pub fn tx_count(self) -> i32 {
        self.tx
    }

    /// Parity of the phase in progress.
    pub fn parity(self) -> bool {
        self.odd
    }

    /// The value that `mbarrier.arrive` returns: the barrier as it was before the arrival.
    pub fn state(self) -> u64 {
        let tx = u64::from(self.tx as u32 & ((1 << TX_BITS) - 1));
        u64::from(self.pending)
            | u64::from(self.expected) << 20
            | tx << 40
            | u64::from(self.odd) << 61
            | TAG << 62
    }

    /// `mbarrier.arrive`: `count` arrivals; the phase may complete.
    pub fn arrive(&mut self, count: u32) -> Result<u64, MbarrierError> {
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(MbarrierError::ArriveCount(count));
        }
        if count > self.pending {
            return Err(MbarrierError::TooManyArrivals { count, pending: self.pending });
        }
        let state = self.state();
        self.pending -= count;
        self.advance();
        Ok(state)
    }

    /// `mbarrier.arrive.noComplete`: an error if the phase would complete.
    pub fn arrive_no_complete(&mut self, count: u32) -> Result<u64, MbarrierError> {
        let mut after = *self;
        let state = after.arrive(count)?;
        if after.odd != self.odd {
            return Err(MbarrierError::CompletesPhase);
        }
        *self = after;
        Ok(state)
    }

    /// `mbarrier.arrive_drop`: arrives, and does not take part in the phases after this one.
    pub fn arrive_drop(&mut self, count: u32) -> Result<u64, MbarrierError> {
        if count > self.expected {
            return Err(MbarrierError::TooManyDropped { count, expected: self.expected });
        }
        let mut after = Self { expected: self.expected - count, ..*self };
        after.arrive(count)?;
        let state = self.state();
        *self = after;
        Ok(state)
    }

    /// `mbarrier.expect_tx`: this phase waits for `bytes` more.
    pub fn expect_tx(&mut self, bytes: u32) -> Result<(), MbarrierError> {
        self.add_tx(i64::from(bytes))
    }

    /// `mbarrier.arrive.expect_tx`: the bytes are announced first, so the arrival cannot complete the phase
    /// before they came.
    pub fn arrive_expect_tx(&mut self, bytes: u32, count: u32) -> Result<u64, MbarrierError> {
        // Announced without looking for completion: both are one step.
        let mut after = *self;
        after.set_tx(i64::from(after.tx) + i64::from(bytes))?;
        after.arrive(count)?;
        let state = self.state();
        *self = after;
        Ok(state)
    }

    /// The complete-tx operation of an asynchronous copy: `bytes` came; the phase may complete.
    pub fn complete_tx(&mut self, bytes: u32) -> Result<(), MbarrierError> {
        self.add_tx(-i64::from(bytes))
    }

    /// `cp.async.mbarrier.arrive` without `.noinc`: one more arrival is pending, which the copies make good.
    pub fn increment_pending(&mut self) -> Result<(), MbarrierError> {
        if self.pending == MAX_COUNT {
            return Err(MbarrierError::PendingOverflow);
        }
        self.pending += 1;
        Ok(())
    }

    /// `mbarrier.test_wait.parity`: whether the phase of this parity completed, which is either the one in
    /// progress or the one before it.
    pub fn test_parity(self, odd: bool) -> bool {
        self.odd != odd
    }

    /// `mbarrier.test_wait`: whether the phase completed in which an arrival returned `state`.
    pub fn test_state(self, state: u64) -> Result<bool, MbarrierError> {
        let then = Self::decode(state.to_le_bytes()).map_err(|_| MbarrierError::BadState(state))?;
        Ok(self.test_parity(then.odd))
    }

    fn add_tx(&mut self, bytes: i64) -> Result<(), MbarrierError> {
        self.set_tx(i64::from(self.tx) + bytes)?;
        self.advance();
        Ok(())
    }

    fn set_tx(&mut self, tx: i64) -> Result<(), MbarrierError> {
        if tx.unsigned_abs() > u64::from(MAX_COUNT) {
            return Err(MbarrierError::TxOverflow(tx));
        }
        self.tx = tx as i32;
        Ok(())
    }

    fn is_complete(self) -> bool {
        self.pending == 0 && self.tx == 0 && self.expected != 0
    }

    fn advance(&mut self) {
        if self.pending == 0 && self.tx == 0 {
            self.odd = !self.odd;
            self.pending = self.expected;
        }
    }
}
