//! Where diverged lanes join again: the immediate post-dominators of branches.

use super::op::{Instr, NO_JOIN, Op};

/// Fills in the joins of the branches of one function, whose first instruction has the index `base`.
pub(super) fn join(code: &mut [Instr], base: u32) {
    let blocks = Blocks::of(code, base);
    let parents = post_dominators(&blocks.successors);
    let exit = blocks.starts.len();
    for (block, &end) in blocks.ends.iter().enumerate() {
        let at = end - 1;
        let parent = parents[block];
        let join = if parent >= exit { NO_JOIN } else { blocks.starts[parent] as u32 + base };
        match &mut code[at].op {
            Op::Branch { join: slot, .. } | Op::BranchIndexed { join: slot, .. } => *slot = join,
            _ => {}
        }
    }
}

struct Blocks {
    starts: Vec<usize>,
    ends: Vec<usize>,
    /// Successors of each block; the number of blocks stands for the end of the function.
    successors: Vec<Vec<usize>>,
}

impl Blocks {
    fn of(code: &[Instr], base: u32) -> Self {
        let mut leader = vec![false; code.len() + 1];
        leader[0] = true;
        for (at, instruction) in code.iter().enumerate() {
            match &instruction.op {
                Op::Branch { target, .. } => {
                    leader[(target - base) as usize] = true;
                    leader[at + 1] = true;
                }
                Op::BranchIndexed { targets, .. } => {
                    targets.iter().for_each(|target| leader[(target - base) as usize] = true);
                    leader[at + 1] = true;
                }
                Op::Return | Op::Exit | Op::Trap => leader[at + 1] = true,
                _ => {}
            }
        }
        let starts: Vec<usize> = (0..code.len()).filter(|&at| leader[at]).collect();
        let mut ends: Vec<usize> = starts[1..].to_vec();
        ends.push(code.len());
        let exit = starts.len();
        let block_at = |at: usize| starts.binary_search(&at).unwrap_or(exit);
        let successors = ends
            .iter()
            .map(|&end| {
                let last = &code[end - 1];
                let next = block_at(end);
                match &last.op {
                    Op::Branch { target, .. } => {
                        let target = block_at((target - base) as usize);
                        if last.guard.is_some() { vec![target, next] } else { vec![target] }
                    }
                    Op::BranchIndexed { targets, .. } => {
                        let mut list: Vec<usize> =
                            targets.iter().map(|target| block_at((target - base) as usize)).collect();
                        if last.guard.is_some() {
                            list.push(next);
                        }
                        list
                    }
                    // Lanes whose guard is false go on.
                    Op::Return | Op::Exit | Op::Trap if last.guard.is_some() => vec![next],
                    Op::Return | Op::Exit | Op::Trap => vec![exit],
                    _ => vec![next],
                }
            })
            .collect();
        Self { starts, ends, successors }
    }
}

/// Immediate post-dominator of each block, after Cooper, Harvey and Kennedy on the reversed graph. A block
/// from which the end is not reached (an endless loop) gets the end.
fn post_dominators(successors: &[Vec<usize>]) -> Vec<usize> {
    let exit = successors.len();
    let mut predecessors = vec![Vec::new(); exit + 1];
    for (block, list) in successors.iter().enumerate() {
        list.iter().for_each(|&next| predecessors[next].push(block));
    }
    // Postorder of a walk from the end along predecessors.
    let mut order = Vec::with_capacity(exit + 1);
    let mut number = vec![usize::MAX; exit + 1];
    let mut seen = vec![false; exit + 1];
    let mut stack = vec![(exit, 0)];
    seen[exit] = true;
    while let Some((block, child)) = stack.pop() {
        if let Some(&next) = predecessors[block].get(child) {
            stack.push((block, child + 1));
            if !seen[next] {
                seen[next] = true;
                stack.push((next, 0));
            }
        } else {
            number[block] = order.len();
            order.push(block);
        }
    }
    let mut parents = vec![usize::MAX; exit + 1];
    parents[exit] = exit;
    let mut changed = true;
    while changed {
        changed = false;
        for &block in order.iter().rev().filter(|&&block| block != exit) {
            let mut parent = usize::MAX;
            for &next in &successors[block] {
                if parents[next] == usize::MAX {
                    continue;
                }
                if parent == usize::MAX {
                    parent = next;
                    continue;
                }
                let (mut a, mut b) = (parent, next);
                while a != b {
                    while number[a] < number[b] {
                        a = parents[a];
                    }
                    while number[b] < number[a] {
                        b = parents[b];
                    }
                }
                parent = a;
            }
            if parents[block] != parent {
                parents[block] = parent;
                changed = true;
            }
        }
    }
    parents.iter().map(|&parent| if parent == usize::MAX { exit } else { parent }).collect()
}
