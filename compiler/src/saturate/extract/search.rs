//! The search for the cheapest form; it draws nothing by chance.
//!
//! It climbs by moves that change one class, or one tuple with everything that can be taken from it. Some forms lie
//! behind others that cost more: where two kernels exclude each other because they write one state, or where a norm has
//! to leave a product before it can join a sum, several classes change at once. So from where it can climb no further,
//! the search does without some forms for a while: the writers of a state but one, or a kernel that it has chosen.

use std::collections::{BTreeMap, BTreeSet};

use super::{Choice, Form, Forms};
use crate::saturate::term::Head;

/// Classes, each with the node that it changes to.
pub(super) type Move = Vec<(usize, usize)>;

/// Nodes, each with its class before it.
pub(super) type Nodes = BTreeSet<(usize, usize)>;

/// What there is without some nodes.
pub(super) struct Detour {
    /// Those nodes, by class.
    banned: Nodes,
    /// For each class the cheapest node without them.
    choice: Choice,
    /// Whether a class can be computed without them.
    usable: Vec<bool>,
    /// The moves that do without them.
    pub(super) moves: Vec<Move>,
}

impl Forms {
    /// The best choice that the search finds, and its seconds.
    pub fn best(&self) -> (Choice, f64) {
        let moves = self.moves();
        let starts = [self.original.clone(), self.bottom_up(&Nodes::new()).0];
        let mut best = (self.original.clone(), f64::INFINITY);
        for start in starts {
            let climbed = self.climb(start, &moves);
            if climbed.1 < best.1 {
                best = climbed;
            }
        }
        let mut known: BTreeMap<Nodes, Option<Detour>> = BTreeMap::new();
        let writers = self.other_writers();
        loop {
            let chosen = self.chosen(&best.0).into_iter().map(|kernel| Nodes::from([kernel]));
            let better = writers.iter().cloned().chain(chosen).find_map(|banned| {
                let detour = known.entry(banned).or_insert_with_key(|banned| self.detour(banned, &moves));
                let climbed = self.take(&best.0, detour.as_ref()?, &moves)?;
                (climbed.1 < best.1 * (1.0 - 1e-9)).then_some(climbed)
            });
            match better {
                Some(better) => best = better,
                None => return best,
            }
        }
    }

    /// Where a detour leads to from a choice.
    fn take(&self, from: &Choice, detour: &Detour, moves: &[Move]) -> Option<(Choice, f64)> {
        // The way back is barred at first: a detour pays only by what it makes possible.
        let (there, _) = self.climb(self.without(from, detour)?, &detour.moves);
        Some(self.climb(there, moves))
    }

    /// Takes the best move as long as one is an improvement.
    pub(super) fn climb(&self, mut choice: Choice, moves: &[Move]) -> (Choice, f64) {
        let mut seconds = self.seconds(&choice);
        loop {
            let reached = self.reached(&choice);
            let mut next: Option<(&Move, f64)> = None;
            for changes in moves {
                // What changes where nothing looks changes nothing.
                if !changes.iter().any(|(class, node)| reached[*class] && choice[*class] != *node) {
                    continue;
                }
                let before: Vec<usize> = changes.iter().map(|(class, _)| choice[*class]).collect();
                changes.iter().for_each(|(class, node)| choice[*class] = *node);
                let cost = self.seconds(&choice);
                changes.iter().zip(before).for_each(|((class, _), node)| choice[*class] = node);
                let least = next.map_or(seconds, |(_, least)| least);
                if cost < least * (1.0 - 1e-9) || (least.is_infinite() && cost.is_finite()) {
                    next = Some((changes, cost));
                }
            }
            let Some((changes, cost)) = next else { return (choice, seconds) };
            changes.iter().for_each(|(class, node)| choice[*class] = *node);
            seconds = cost;
        }
    }

    /// The classes that a choice computes.
    pub(super) fn reached(&self, choice: &Choice) -> Vec<bool> {
        let mut reached = vec![false; self.classes.len()];
        let mut open = self.roots.clone();
        while let Some(class) = open.pop() {
            if !std::mem::replace(&mut reached[class], true) {
                open.extend(&self.classes[class].nodes[choice[class]].children);
            }
        }
        reached
    }

    /// The kernels that a choice computes.
    pub(super) fn chosen(&self, choice: &Choice) -> Vec<(usize, usize)> {
        let reached = self.reached(choice);
        let chosen = choice.iter().copied().enumerate().filter(|(class, _)| reached[*class]);
        chosen.filter(|(class, node)| self.classes[*class].nodes[*node].seconds > 0.0).collect()
    }

    /// For each state and each class that could write it, the writers in other classes.
    fn other_writers(&self) -> Vec<Nodes> {
        let mut writers: BTreeMap<usize, BTreeMap<usize, Nodes>> = BTreeMap::new();
        for (class, forms) in self.classes.iter().enumerate() {
            for (node, form) in forms.nodes.iter().enumerate() {
                for state in &form.writes {
                    writers.entry(*state).or_default().entry(class).or_default().insert((class, node));
                }
            }
        }
        let others = |by_class: &BTreeMap<usize, Nodes>, class: &usize| {
            by_class
                .iter()
                .filter(|(other, _)| *other != class)
                .flat_map(|(_, nodes)| nodes.clone())
                .collect()
        };
        let several = writers.values().filter(|by_class| by_class.len() > 1);
        several.flat_map(|by_class| by_class.keys().map(move |class| others(by_class, class))).collect()
    }

    /// The way without some nodes; `None` where they are needed.
    pub(super) fn detour(&self, banned: &Nodes, moves: &[Move]) -> Option<Detour> {
        let (choice, usable) = self.bottom_up(banned);
        if !self.roots.iter().all(|root| usable[*root]) {
            return None;
        }
        let open = |(class, node): &(usize, usize)| {
            let children = &self.classes[*class].nodes[*node].children;
            !banned.contains(&(*class, *node)) && children.iter().all(|child| usable[*child])
        };
        let moves = moves.iter().filter(|changes| changes.iter().all(open)).cloned().collect();
        Some(Detour { banned: banned.clone(), choice, usable, moves })
    }

    /// A choice without the nodes of a detour, and otherwise as it is; `None` where it has none of them.
    pub(super) fn without(&self, choice: &Choice, detour: &Detour) -> Option<Choice> {
        let reached = self.reached(choice);
        let mut changed = choice.clone();
        let mut seen = vec![false; self.classes.len()];
        let mut open = self.roots.clone();
        while let Some(class) = open.pop() {
            if std::mem::replace(&mut seen[class], true) {
                continue;
            }
            let form = &self.classes[class].nodes[choice[class]];
            let gone = detour.banned.contains(&(class, choice[class]))
                || form.children.iter().any(|child| !detour.usable[*child]);
            if gone || !reached[class] {
                changed[class] = detour.choice[class];
            }
            open.extend(&self.classes[class].nodes[changed[class]].children);
        }
        (changed != *choice).then_some(changed)
    }

    /// Each class to each of its nodes; each tuple's node together with everything taken from the tuple.
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut taken: BTreeMap<usize, Move> = BTreeMap::new();
        let mut moves = Vec::new();
        for (class, forms) in self.classes.iter().enumerate() {
            for (node, form) in forms.nodes.iter().enumerate() {
                if forms.nodes.len() > 1 {
                    moves.push(vec![(class, node)]);
                }
                if matches!(form.term.head, Head::Get(_)) {
                    taken.entry(form.children[0]).or_default().push((class, node));
                }
            }
        }
        for (tuple, projections) in taken {
            for node in 0..self.classes[tuple].nodes.len() {
                moves.push(projections.iter().copied().chain([(tuple, node)]).collect());
            }
        }
        moves
    }

    /// For each class the node whose set of kernels is cheapest, from the leaves up and without those that are banned,
    /// and whether there is one.
    fn bottom_up(&self, banned: &Nodes) -> (Choice, Vec<bool>) {
        let mut choice = self.original.clone();
        let mut sets: Vec<Option<(f64, BTreeMap<usize, f64>)>> = vec![None; self.classes.len()];
        loop {
            let mut changed = false;
            for (class, forms) in self.classes.iter().enumerate() {
                for (node, form) in forms.nodes.iter().enumerate() {
                    if banned.contains(&(class, node)) {
                        continue;
                    }
                    let Some(set) = self.set_of(class, form, &sets) else { continue };
                    let total: f64 = set.values().sum();
                    let better = sets[class].as_ref().is_none_or(|(known, _)| total < known * (1.0 - 1e-9));
                    if better {
                        sets[class] = Some((total, set));
                        choice[class] = node;
                        changed = true;
                    }
                }
            }
            if !changed {
                return (choice, sets.iter().map(Option::is_some).collect());
            }
        }
    }

    /// The kernels that a node needs, itself included; `None` where a child has none yet or needs this class.
    fn set_of(
        &self,
        class: usize,
        form: &Form,
        sets: &[Option<(f64, BTreeMap<usize, f64>)>],
    ) -> Option<BTreeMap<usize, f64>> {
        let mut set = BTreeMap::new();
        for child in &form.children {
            let (_, of_child) = sets[*child].as_ref()?;
            set.extend(of_child.iter().map(|(class, seconds)| (*class, *seconds)));
        }
        if set.contains_key(&class) || form.seconds.is_infinite() {
            return None;
        }
        set.insert(class, form.seconds);
        Some(set)
    }
}
