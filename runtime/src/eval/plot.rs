//! The curve of accuracy over tokens, as SVG.

use std::fmt;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use thiserror::Error;

use super::{Score, Setting};

const SIZE: (u32, u32) = (720, 440);
const FONT: &str = "sans-serif";
const THINKING: RGBColor = RGBColor(58, 125, 0);
const SILENT: RGBColor = RGBColor(176, 64, 0);
const GREY: RGBColor = RGBColor(110, 110, 110);

/// What is written over a curve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Titles {
    /// The model.
    pub model: String,
    /// What was asked, and how.
    pub what: String,
}

/// A curve that cannot be drawn.
#[derive(Debug, Error)]
#[error("cannot draw the curve: {0}")]
pub struct PlotError(String);

/// Accuracy over new tokens a problem: a line through the budgets in their order, thinking off beside it, and the 95 %
/// intervals. The same scores give the same bytes.
///
/// # Errors
/// [`PlotError`] when the drawing library refuses.
pub fn draw(scores: &[Score], titles: &Titles) -> Result<String, PlotError> {
    let mut svg = String::new();
    plot(&mut svg, scores, titles).map_err(|error| PlotError(error.to_string()))?;
    Ok(svg)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn plot(svg: &mut String, scores: &[Score], titles: &Titles) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32, color: RGBColor| (FONT, size).into_font().color(&color);
    area.draw(&Text::new(titles.model.clone(), (24, 16), text(20, BLACK)))?;
    area.draw(&Text::new(titles.what.clone(), (24, 42), text(13, GREY)))?;
    let most = scores.iter().map(|score| score.new_tokens).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .margin_top(70)
        .margin_right(28)
        .margin_bottom(8)
        .margin_left(8)
        .x_label_area_size(46)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..most * 1.1, 0.0..1.02_f64)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("new tokens a problem, mean")
        .y_desc("right answers")
        .x_label_formatter(&|tokens| {
            if most < 10.0 { format!("{tokens:.1}") } else { format!("{tokens:.0}") }
        })
        .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .label_style(text(13, GREY))
        .axis_desc_style(text(14, BLACK))
        .draw()?;
    let mut thinking: Vec<&Score> = scores.iter().filter(|score| score.setting.thinks()).collect();
    thinking.sort_by_key(|score| score.setting);
    chart.draw_series(LineSeries::new(thinking.iter().map(|score| at(score)), THINKING.stroke_width(2)))?;
    for score in scores {
        point(&mut chart, score)?;
    }
    for label in labels(scores, most) {
        write(&mut chart, &label)?;
    }
    area.present()?;
    Ok(())
}

/// Where a score stands.
fn at(score: &Score) -> (f64, f64) {
    (score.new_tokens, score.accuracy())
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn color(setting: Setting) -> RGBColor {
    if setting.thinks() { THINKING } else { SILENT }
}

/// A score with its interval.
fn point(chart: &mut Chart<'_, '_>, score: &Score) -> Drawn {
    let color = color(score.setting);
    let (tokens, accuracy) = at(score);
    let (low, high) = score.interval();
    let whisker = vec![(tokens, low), (tokens, high)];
    chart.draw_series([PathElement::new(whisker, color.mix(0.45).stroke_width(1))])?;
    chart.draw_series([Circle::new((tokens, accuracy), 4, color.filled())])?;
    Ok(())
}

/// What stands beside a point.
#[derive(Debug, Clone, PartialEq)]
struct Label {
    at: (f64, f64),
    text: String,
    color: RGBColor,
}

/// The names of the points; those of points in one place are one label. `most` is the width of the curve.
fn labels(scores: &[Score], most: f64) -> Vec<Label> {
    let mut scores: Vec<&Score> = scores.iter().collect();
    scores.sort_by_key(|score| score.setting);
    let mut labels: Vec<Label> = Vec::new();
    for score in scores {
        let (here, color, name) = (at(score), color(score.setting), Name(score.setting));
        let close = |label: &&mut Label| {
            let (x, y) = ((label.at.0 - here.0) / most, label.at.1 - here.1);
            label.color == color && x.abs() < 0.02 && y.abs() < 0.02
        };
        match labels.iter_mut().find(close) {
            Some(label) => label.text.push_str(&format!(", {name}")),
            None => labels.push(Label { at: here, text: name.to_string(), color }),
        }
    }
    labels
}

/// Writes a label beside its point: below the line, which rises, and above the axis.
fn write(chart: &mut Chart<'_, '_>, label: &Label) -> Drawn {
    let (above, down) = if label.at.1 < 0.08 { (VPos::Bottom, -4) } else { (VPos::Top, 4) };
    // The two kinds of points may meet.
    let (side, right) = if label.color == SILENT { (HPos::Right, -6) } else { (HPos::Left, 6) };
    let style = (FONT, 13).into_font().color(&label.color).pos(Pos::new(side, above));
    let text = Text::new(label.text.clone(), (right, down), style);
    chart.draw_series([EmptyElement::at(label.at) + text])?;
    Ok(())
}

/// A setting beside its point.
struct Name(Setting);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Setting::Off => f.write_str("off"),
            Setting::Budget(tokens) => write!(f, "{tokens}"),
            Setting::Free => f.write_str("\u{221e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles() -> Titles {
        Titles { model: "a <model>".to_owned(), what: "200 problems, greedy".to_owned() }
    }

    #[test]
    fn a_curve() {
        let scores = [
            Score::example(Setting::Off, 20, 5.0),
            Score::example(Setting::Free, 198, 80.0),
            Score::example(Setting::Budget(0), 24, 8.0),
            Score::example(Setting::Budget(32), 150, 40.5),
            Score::example(Setting::Budget(128), 198, 80.0),
        ];
        let svg = draw(&scores, &titles()).unwrap();
        assert_eq!(svg, draw(&scores, &titles()).unwrap());
        insta::assert_snapshot!(svg);
    }

    #[test]
    fn scores_of_nothing_are_drawn() {
        let nothing = Score::of(Setting::Free, &[], 0.0);
        assert!(draw(&[nothing], &titles()).unwrap().ends_with("</svg>\n"));
        assert!(draw(&[], &titles()).unwrap().contains("a &lt;model&gt;"));
    }
}
