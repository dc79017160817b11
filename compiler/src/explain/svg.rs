//! A drawing as an SVG picture.

use std::fmt::Write;

use super::drawing::{Box, Drawing, Tag};
use super::layout::{Point, Size, layout};

/// Widths of a character of the monospaced fonts in the three sizes that are used.
const TITLE: f64 = 7.9;
const SMALL: f64 = 6.4;
const TINY: f64 = 6.1;

const LINE: f64 = 14.0;
const TAG: f64 = 17.0;
const PADDING: f64 = 9.0;
/// Widest row of tags.
const ROW: f64 = 250.0;

/// What is said of a box beside what the graph says.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// Identity in the page; none for a box that nothing refers to.
    pub id: Option<String>,
    /// Identities of the boxes that it stands for.
    pub stands_for: Vec<String>,
    /// Number of the kernel that it is, or goes into.
    pub numbers: Vec<usize>,
    /// A line of numbers.
    pub costs: Option<String>,
}

/// Draws; `marks` has an entry per box. `label` says what the picture shows.
pub(super) fn svg(drawing: &Drawing, marks: &[Mark], label: &str) -> String {
    let sizes: Vec<Size> = drawing.boxes.iter().zip(marks).map(|(b, mark)| size(b, mark)).collect();
    let edges: Vec<(usize, usize)> = drawing.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let placed = layout(&sizes, &edges);
    let (width, height) = (placed.size.width, placed.size.height);
    let mut text = format!(
        "<svg role=\"img\" aria-label=\"{}\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">\n",
        escape(label)
    );
    for (edge, path) in drawing.edges.iter().zip(&placed.paths) {
        let class = if edge.state { "edge state" } else { "edge" };
        add(
            &mut text,
            format_args!(
                "<path class=\"{class}\" d=\"{}\" marker-end=\"url(#tip)\"><title>{}</title></path>\n",
                curve(path),
                escape(&edge.ty)
            ),
        );
    }
    for ((drawn, mark), (corner, size)) in
        drawing.boxes.iter().zip(marks).zip(placed.corners.iter().zip(&sizes))
    {
        draw(&mut text, drawn, mark, *corner, *size);
    }
    text.push_str("</svg>\n");
    text
}

/// What may not stand in a page as it is.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn add(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
}

fn chars(text: &str) -> f64 {
    text.chars().count() as f64
}

fn tag_width(tag: &Tag) -> f64 {
    chars(&tag.text) * TINY + 10.0
}

/// Tags in rows.
fn rows(tags: &[Tag]) -> Vec<Vec<&Tag>> {
    let mut rows: Vec<Vec<&Tag>> = Vec::new();
    let mut used = f64::INFINITY;
    for tag in tags {
        let width = tag_width(tag) + 5.0;
        if used + width > ROW {
            rows.push(Vec::new());
            used = 0.0;
        }
        used += width;
        rows.last_mut().expect("a row was begun").push(tag);
    }
    rows
}

/// The lines of a box below its title: class and text.
fn lines<'a>(drawn: &'a Box, mark: &'a Mark) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if !drawn.types.is_empty() {
        lines.push(("type", drawn.types.clone()));
    }
    lines.extend(drawn.parts.iter().map(|part| ("part", format!("· {part}"))));
    lines.extend(mark.costs.iter().map(|costs| ("cost", costs.clone())));
    lines
}

fn size(drawn: &Box, mark: &Mark) -> Size {
    let rows = rows(&drawn.tags);
    let lines = lines(drawn, mark);
    let row_width = |row: &Vec<&Tag>| row.iter().map(|tag| tag_width(tag) + 5.0).sum::<f64>() - 5.0;
    let badges = 20.0 * mark.numbers.len() as f64;
    let width = lines
        .iter()
        .map(|(_, line)| chars(line) * SMALL)
        .chain(rows.iter().map(row_width))
        .chain([chars(&drawn.title) * TITLE + badges])
        .fold(28.0, f64::max);
    let height = 17.0 + LINE * lines.len() as f64 + TAG * rows.len() as f64;
    Size { width: width + 2.0 * PADDING, height: height + PADDING }
}

fn draw(text: &mut String, drawn: &Box, mark: &Mark, at: Point, size: Size) {
    let id = mark.id.as_ref().map_or_else(String::new, |id| format!(" id=\"{id}\""));
    let replaces = if mark.stands_for.is_empty() {
        String::new()
    } else {
        format!(" tabindex=\"0\" data-ops=\"{}\"", mark.stands_for.join(" "))
    };
    add(text, format_args!("<g class=\"box {}\"{id}{replaces}>\n", drawn.class));
    let round = if matches!(drawn.class, "input" | "output") { 13 } else { 5 };
    add(
        text,
        format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"{round}\"/>\n",
            at.x, at.y, size.width, size.height
        ),
    );
    let left = at.x + PADDING;
    let mut y = at.y + 17.0;
    add(
        text,
        format_args!("<text class=\"title\" x=\"{left:.1}\" y=\"{y:.1}\">{}</text>\n", escape(&drawn.title)),
    );
    for (n, number) in mark.numbers.iter().rev().enumerate() {
        let x = at.x + size.width - 13.0 - 20.0 * n as f64;
        add(
            text,
            format_args!(
                "<circle class=\"badge\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"8\"/>\n\
             <text class=\"number\" x=\"{x:.1}\" y=\"{:.1}\">{number}</text>\n",
                y - 4.0,
                y - 0.5
            ),
        );
    }
    for (class, line) in lines(drawn, mark) {
        y += LINE;
        add(
            text,
            format_args!("<text class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\">{}</text>\n", escape(&line)),
        );
    }
    y += 6.0;
    for row in rows(&drawn.tags) {
        let mut x = left;
        for tag in row {
            let width = tag_width(tag);
            add(
                text,
                format_args!(
                    "<rect class=\"tag {}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"14\" rx=\"3\"/>\n\
                 <text class=\"tagged\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                    tag.class,
                    x + 5.0,
                    y + 10.5,
                    escape(&tag.text)
                ),
            );
            x += width + 5.0;
        }
        y += TAG;
    }
    text.push_str("</g>\n");
}

/// A smooth line through points from top to bottom.
fn curve(points: &[Point]) -> String {
    let mut path = String::new();
    for (n, to) in points.iter().enumerate() {
        match n.checked_sub(1).map(|before| points[before]) {
            None => add(&mut path, format_args!("M{:.1} {:.1}", to.x, to.y)),
            Some(from) => {
                let middle = f64::midpoint(from.y, to.y);
                add(
                    &mut path,
                    format_args!(
                        " C{:.1} {middle:.1} {:.1} {middle:.1} {:.1} {:.1}",
                        from.x, to.x, to.x, to.y
                    ),
                );
            }
        }
    }
    path
}
