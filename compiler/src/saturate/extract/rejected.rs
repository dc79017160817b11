//! The best form that was not chosen, for measuring the choice by.

use super::search::Nodes;
use super::{Choice, Forms};
use crate::saturate::term::Head;

impl Forms {
    /// The cheapest choice found that has other kernels than this one: without each of its kernels in turn, whatever it
    /// rounds, the best that can be had.
    pub fn runner_up(&self, choice: &Choice) -> Option<(Choice, f64)> {
        let kernels = self.kernels(choice);
        let moves = self.moves();
        let without = self.chosen(choice).into_iter().filter_map(|kernel| {
            let (class, chosen) = kernel;
            let nodes = &self.classes[class].nodes;
            let same = |node: &usize| nodes[*node].term.head == nodes[chosen].term.head;
            let alike: Nodes = (0..nodes.len()).filter(same).map(|node| (class, node)).collect();
            let detour = self.detour(&alike, &moves)?;
            Some(self.climb(self.without(choice, &detour)?, &detour.moves))
        });
        let others = without.filter(|(other, seconds)| seconds.is_finite() && self.kernels(other) != kernels);
        others.min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// The ops that a choice computes, views left out, in alphabetical order.
    fn kernels(&self, choice: &Choice) -> Vec<&'static str> {
        let reached = self.reached(choice);
        let classes = (0..self.classes.len()).filter(|class| reached[*class]);
        let mut ops: Vec<_> = classes
            .filter_map(|class| match self.classes[class].nodes[choice[class]].term.head {
                Head::Op(name) if name != "slice" => Some(name),
                _ => None,
            })
            .collect();
        ops.sort_unstable();
        ops
    }
}
