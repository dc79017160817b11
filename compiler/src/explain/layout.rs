//! Where the boxes of a drawing go: layers from top to bottom, few crossings, straight edges where it can be had.
//!
//! An edge over several layers gets a place of its own in each layer between, so it runs around boxes. Ties are
//! broken by order, so the same graph always looks the same.

/// Between two layers.
const LAYER_GAP: f64 = 34.0;
/// Between neighbours in a layer.
const BOX_GAP: f64 = 22.0;
/// Width of the lane of a passing edge.
const LANE: f64 = 10.0;
/// Around everything.
const MARGIN: f64 = 12.0;
/// Sweeps down and up, for the order in a layer and then for the places.
const SWEEPS: usize = 12;

/// Width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    pub width: f64,
    pub height: f64,
}

/// From the left and from the top.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
}

/// A layout.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// Upper left corner of each box.
    pub corners: Vec<Point>,
    /// The points that each edge passes.
    pub paths: Vec<Vec<Point>>,
    /// Of the whole drawing.
    pub size: Size,
}

/// A box, or the lane of an edge, in its layer.
struct Item {
    width: f64,
    layer: usize,
    above: Vec<usize>,
    below: Vec<usize>,
    /// Middle.
    x: f64,
}

/// Places boxes; every edge goes from a box to a later one.
pub(super) fn layout(sizes: &[Size], edges: &[(usize, usize)]) -> Layout {
    let mut layer_of = vec![0; sizes.len()];
    let mut by_target: Vec<(usize, usize)> = edges.to_vec();
    by_target.sort_by_key(|(from, to)| (*to, *from));
    for (from, to) in by_target {
        layer_of[to] = layer_of[to].max(layer_of[from] + 1);
    }
    let item = |width, layer| Item { width, layer, above: Vec::new(), below: Vec::new(), x: 0.0 };
    let mut items: Vec<Item> =
        sizes.iter().zip(&layer_of).map(|(size, layer)| item(size.width, *layer)).collect();
    let mut chains: Vec<Vec<usize>> = Vec::with_capacity(edges.len());
    for (from, to) in edges {
        let mut chain = vec![*from];
        for layer in layer_of[*from] + 1..layer_of[*to] {
            items.push(item(LANE, layer));
            chain.push(items.len() - 1);
        }
        chain.push(*to);
        for pair in chain.windows(2) {
            items[pair[0]].below.push(pair[1]);
            items[pair[1]].above.push(pair[0]);
        }
        chains.push(chain);
    }
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); layer_of.iter().max().map_or(0, |last| last + 1)];
    for (index, item) in items.iter().enumerate() {
        layers[item.layer].push(index);
    }
    for sweep in 0..SWEEPS {
        reorder(&mut items, &mut layers, sweep % 2 == 0);
    }
    for sweep in 0..SWEEPS {
        straighten(&mut items, &layers, sweep % 2 == 0);
    }
    place(sizes, &mut items, &layers, &chains)
}

/// Sorts each layer by the mean place of what it is connected to in the one before, or behind.
fn reorder(items: &mut [Item], layers: &mut [Vec<usize>], down: bool) {
    for layer in layers.iter_mut() {
        for (place, index) in layer.iter().enumerate() {
            items[*index].x = place as f64;
        }
    }
    let count = layers.len();
    for step in 0..count {
        let layer = &mut layers[if down { step } else { count - 1 - step }];
        let mut keyed: Vec<(f64, usize)> =
            layer.iter().map(|index| (wish(items, *index, down), *index)).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        *layer = keyed.into_iter().map(|(_, index)| index).collect();
        for (place, index) in layer.iter().enumerate() {
            items[*index].x = place as f64;
        }
    }
}

/// Where an item would like to be.
fn wish(items: &[Item], index: usize, down: bool) -> f64 {
    let item = &items[index];
    let neighbours = if down { &item.above } else { &item.below };
    let sum: f64 = neighbours.iter().map(|other| items[*other].x).sum();
    if neighbours.is_empty() { item.x } else { sum / neighbours.len() as f64 }
}

/// Moves the items of each layer towards what they are connected to, without overlap and in their order.
fn straighten(items: &mut [Item], layers: &[Vec<usize>], down: bool) {
    let count = layers.len();
    for step in 0..count {
        let layer = &layers[if down { step } else { count - 1 - step }];
        let wishes: Vec<f64> = layer.iter().map(|index| wish(items, *index, down)).collect();
        let apart = |a: usize, b: usize| (items[layer[a]].width + items[layer[b]].width) / 2.0 + BOX_GAP;
        // As far left and as far right as the order allows: what lies in the middle keeps all distances.
        let (mut rightmost, mut leftmost) = (wishes.clone(), wishes);
        for n in 1..layer.len() {
            rightmost[n] = rightmost[n].max(rightmost[n - 1] + apart(n - 1, n));
        }
        for n in (1..layer.len()).rev() {
            leftmost[n - 1] = leftmost[n - 1].min(leftmost[n] - apart(n - 1, n));
        }
        for (n, index) in layer.iter().enumerate() {
            items[*index].x = f64::midpoint(rightmost[n], leftmost[n]);
        }
    }
}

fn place(sizes: &[Size], items: &mut [Item], layers: &[Vec<usize>], chains: &[Vec<usize>]) -> Layout {
    let left = items.iter().map(|item| item.x - item.width / 2.0).fold(f64::INFINITY, f64::min);
    for item in items.iter_mut() {
        item.x += MARGIN - left;
    }
    let mut tops = Vec::with_capacity(layers.len());
    let mut heights = Vec::with_capacity(layers.len());
    let mut y = MARGIN;
    for layer in layers {
        let height =
            layer.iter().filter_map(|index| sizes.get(*index)).map(|size| size.height).fold(0.0, f64::max);
        tops.push(y);
        heights.push(height);
        y += height + LAYER_GAP;
    }
    let corner = |index: usize| {
        let (item, size) = (&items[index], sizes[index]);
        // Boxes hang from the middle line of their layer.
        Point {
            x: item.x - size.width / 2.0,
            y: tops[item.layer] + (heights[item.layer] - size.height) / 2.0,
        }
    };
    let corners: Vec<Point> = (0..sizes.len()).map(corner).collect();
    // Which of the edges of a box is which: in the order of where they go to, or come from.
    let port = |index: usize, out: bool, edge: usize| {
        let at_end = |chain: &[usize]| if out { chain[0] == index } else { chain[chain.len() - 1] == index };
        let other = |chain: &[usize]| if out { chain[1] } else { chain[chain.len() - 2] };
        let ends = chains.iter().enumerate().filter(|(_, chain)| at_end(chain));
        let mut ends: Vec<(f64, usize)> = ends.map(|(n, chain)| (items[other(chain)].x, n)).collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let place = ends.iter().position(|(_, n)| *n == edge).unwrap_or(0);
        let step = (sizes[index].width / (ends.len() as f64 + 1.0)).min(26.0);
        items[index].x + step * (place as f64 - (ends.len() as f64 - 1.0) / 2.0)
    };
    let path = |(edge, chain): (usize, &Vec<usize>)| {
        let (from, to) = (chain[0], chain[chain.len() - 1]);
        let mut points = vec![Point { x: port(from, true, edge), y: corners[from].y + sizes[from].height }];
        for lane in &chain[1..chain.len() - 1] {
            let Item { x, layer, .. } = items[*lane];
            points.push(Point { x, y: tops[layer] });
            points.push(Point { x, y: tops[layer] + heights[layer] });
        }
        points.push(Point { x: port(to, false, edge), y: corners[to].y });
        points
    };
    let paths = chains.iter().enumerate().map(path).collect();
    let right = items.iter().map(|item| item.x + item.width / 2.0).fold(0.0, f64::max);
    let size = Size { width: right + MARGIN, height: (y - LAYER_GAP).max(0.0) + MARGIN };
    Layout { corners, paths, size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: f64) -> Size {
        Size { width, height: 20.0 }
    }

    #[test]
    fn boxes_do_not_overlap_and_edges_go_down() {
        let sizes: Vec<Size> = [60.0, 200.0, 80.0, 120.0, 90.0, 40.0].map(size).to_vec();
        let edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 5), (0, 5), (4, 5)];
        let layout = layout(&sizes, &edges);
        for (a, first) in layout.corners.iter().enumerate() {
            for (b, second) in layout.corners.iter().enumerate().skip(a + 1) {
                let apart_x = first.x + sizes[a].width <= second.x || second.x + sizes[b].width <= first.x;
                let apart_y = first.y + sizes[a].height <= second.y || second.y + sizes[b].height <= first.y;
                assert!(apart_x || apart_y, "{a} and {b}");
            }
            assert!(first.x >= 0.0 && first.x + sizes[a].width <= layout.size.width);
            assert!(first.y >= 0.0 && first.y + sizes[a].height <= layout.size.height);
        }
        for path in &layout.paths {
            assert!(path.windows(2).all(|pair| pair[0].y <= pair[1].y), "{path:?}");
        }
        // The edge from the first to the last box passes the two layers between in lanes.
        assert_eq!(layout.paths[6].len(), 6);
    }

    #[test]
    fn nothing_is_laid_out_as_nothing() {
        assert!(layout(&[], &[]).corners.is_empty());
    }
}
