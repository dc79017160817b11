//! What the variables of a law stand for, drawn from a seed: leaves of a block, and attributes.

use std::collections::BTreeMap;

use egg::{Id, Var};
use nemo_ir::graph::Node;
use nemo_ir::ops::Attr;
use nemo_ir::plan::Phase;
use nemo_ir::rope::{Llama3Scaling, RopeTable};
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::{Dtype, Symbol, Type};
use nemoc::saturate::term::{Head, Interned, Term};

/// Rows of the rotary tables: more than a drawn sequence reaches.
pub const POSITIONS: u64 = 256;

/// A case draws what the left side of its law needs to be well typed, and for its conditions to hold.
pub type Case = fn(&mut Draw);

/// Numbers by splitmix64 (Steele et al., 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `low ..= high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// One in two.
    pub fn coin(&mut self) -> bool {
        self.next() & (1 << 40) != 0
    }

    /// A real of `[-1, 1)`.
    pub fn real(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// A case in the making.
#[derive(Debug)]
pub struct Draw {
    /// Where the numbers come from.
    pub random: Random,
    /// The phase of the program that the block stands in.
    pub phase: Phase,
    /// The block's leaves.
    pub leaves: Vec<Node>,
    /// Their terms, and those of attributes.
    pub terms: Interned,
    /// What each variable stands for.
    pub vars: BTreeMap<Var, Id>,
}

impl Draw {
    /// Nothing yet.
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let phase = if random.coin() { Phase::Decode } else { Phase::Prefill };
        Self { random, phase, leaves: Vec::new(), terms: Interned::default(), vars: BTreeMap::new() }
    }

    fn bind(&mut self, name: &str, term: Term) {
        let var = format!("?{name}").parse().unwrap_or_else(|error| panic!("`{name}`: {error:?}"));
        let id = self.terms.add(term);
        assert!(self.vars.insert(var, id).is_none(), "?{name} is drawn twice");
    }

    fn leaf(&mut self, name: &str, node: Node) {
        self.leaves.push(node);
        self.bind(name, Term::leaf(Head::Leaf(self.leaves.len() - 1)));
    }

    /// A width or a count: small, and rarely a power of two.
    pub fn size(&mut self) -> u64 {
        self.random.within(1, 7)
    }

    /// One token a sequence, as decode programs have it.
    pub fn decode(&mut self) {
        self.phase = Phase::Decode;
    }

    /// bf16 or f32.
    pub fn any_dtype(&mut self) -> Dtype {
        if self.random.coin() { Dtype::Bf16 } else { Dtype::F32 }
    }

    /// Activations `[T, width]`.
    pub fn value(&mut self, name: &str, width: u64) {
        let ty = Type::new(self.any_dtype(), [Symbol::T.into(), width.into()]);
        self.leaf(name, Node::Input { name: name.to_owned(), ty });
    }

    /// Logits `f32[L, vocab]`.
    pub fn logits(&mut self, name: &str, vocab: u64) {
        let ty = Type::new(Dtype::F32, [Symbol::L.into(), vocab.into()]);
        self.leaf(name, Node::Input { name: name.to_owned(), ty });
    }

    /// A dtype attribute that is f32.
    pub fn f32(&mut self, name: &str) {
        self.bind(name, Term::attr(Attr::Dtype(Dtype::F32)));
    }

    /// A matrix `[rows, columns]`.
    pub fn weight(&mut self, name: &str, rows: u64, columns: u64) {
        let ty = Type::new(self.any_dtype(), [rows.into(), columns.into()]);
        self.leaf(name, Node::Weight { name: name.to_owned(), ty });
    }

    /// A small weight, in f32 as all of them are.
    pub fn small(&mut self, name: &str, shape: &[u64]) {
        let ty = Type::new(Dtype::F32, shape.iter().map(|extent| (*extent).into()));
        self.leaf(name, Node::Weight { name: name.to_owned(), ty });
    }

    /// A small weight or none.
    pub fn optional(&mut self, name: &str, shape: &[u64]) {
        if self.random.coin() {
            self.small(name, shape);
        } else {
            self.bind(name, Term::leaf(Head::Absent));
        }
    }

    /// State by slots, `[S, shape]`.
    pub fn slots(&mut self, name: &str, dtype: Dtype, shape: &[u64]) {
        let extents = shape.iter().map(|extent| (*extent).into());
        let ty = Type::new(dtype, std::iter::once(Symbol::S.into()).chain(extents));
        self.leaf(name, Node::State { name: name.to_owned(), ty });
    }

    /// The cache of keys and values.
    pub fn cache(&mut self, name: &str, heads: u64, head_dim: u64) {
        let shape = [Symbol::N.into(), 2.into(), heads.into(), PAGE_TOKENS.into(), head_dim.into()];
        let ty = Type::new(self.any_dtype(), shape);
        self.leaf(name, Node::State { name: name.to_owned(), ty });
    }

    /// A rotary table.
    pub fn table(&mut self, name: &str, head_dim: u64) {
        let scaling = self.random.coin().then_some(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 64,
        });
        self.leaf(name, Node::Table(RopeTable { theta: 100.0, head_dim, positions: POSITIONS, scaling }));
    }

    /// An integer attribute.
    pub fn int(&mut self, name: &str, value: u64) {
        self.bind(name, Term::attr(Attr::Int(value)));
    }

    /// A real attribute.
    pub fn float(&mut self, name: &str, value: f64) {
        self.bind(name, Term::attr(Attr::Float(value)));
    }

    /// A dtype attribute each, bf16 or f32.
    pub fn dtypes(&mut self, names: &[&str]) {
        for name in names {
            let dtype = self.any_dtype();
            self.bind(name, Term::attr(Attr::Dtype(dtype)));
        }
    }

    /// What a norm of `?group` columns at a time needs, weight `?<weight>` of the width or of a group's: `?eps`,
    /// `?group`; gives the width.
    pub fn norm(&mut self, weight: &str) -> u64 {
        let (group, groups) = (self.size(), self.random.within(1, 3));
        let shared = self.random.coin();
        self.small(weight, &[if shared { group } else { group * groups }]);
        self.norm_attrs(group);
        group * groups
    }

    /// `?eps` and `?group`.
    pub fn norm_attrs(&mut self, group: u64) {
        // Far larger than in any model, so that a mistaken one is seen.
        let eps = self.random.real() * 0.4 + 0.5;
        self.float("eps", eps);
        self.int("group", group);
    }
}
