//! Draws points as an SVG.

use std::{error::Error, path::Path};

use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

use super::{Curve, Point};

const SIZE: (u32, u32) = (800, 480);

/// The same candidate has the same colour in all pictures.
fn colour(candidate: &str) -> RGBColor {
    match candidate {
        "tower-readthrough" => RGBColor(0xd6, 0x27, 0x28),
        "tower-readthrough-store" => RGBColor(0xff, 0x7f, 0x0e),
        "quick_cache+ttl+coalesce" => RGBColor(0x1f, 0x77, 0xb4),
        "floor-arc-str" => RGBColor(0x2c, 0xa0, 0x2c),
        "floor-service" => RGBColor(0x7f, 0x7f, 0x7f),
        "tower-http-cache" => RGBColor(0x94, 0x67, 0xbd),
        _ => RGBColor(0x8c, 0x56, 0x4b),
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(least, most), value| (value.min(least), value.max(most)))
}

/// What part of the height the legend leaves to the lines.
fn below_legend(lines: usize) -> f64 {
    let plot = f64::from(SIZE.1) - 100.0;
    (plot - 28.0 - 18.0 * lines as f64) / plot
}

pub(super) fn draw(curve: &Curve, points: &[Point], path: &Path) -> Result<(), Box<dyn Error>> {
    let (left, right) = bounds(points.iter().map(|point| point.x));
    let (low, high) = bounds(points.iter().map(|point| point.y));
    let x = (left..right * 1.05).log_scale();
    let room = below_legend(curve.candidates.len());
    if curve.log_y {
        let (low, high) = (low / 1.3, high * 1.1);
        draw_on(curve, points, path, x, (low..low * (high / low).powf(1.0 / room)).log_scale())
    } else {
        draw_on(curve, points, path, x, 0.0..high / room)
    }
}

fn draw_on<X, Y>(curve: &Curve, points: &[Point], path: &Path, x: X, y: Y) -> Result<(), Box<dyn Error>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(curve.title, ("sans-serif", 20))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(curve.x)
        .y_desc(curve.y)
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for candidate in curve.candidates {
        let colour = colour(candidate);
        let of = points.iter().filter(|point| point.candidate == *candidate);
        let line: Vec<(f64, f64)> = of.map(|point| (point.x, point.y)).collect();
        let series = LineSeries::new(line.clone(), colour.stroke_width(2));
        chart
            .draw_series(series)?
            .label(*candidate)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(line.into_iter().map(|at| Circle::new(at, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}

/// 1k, 20k, 3M.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", round(value / 1e6)),
        value if value >= 1e4 => format!("{}k", round(value / 1e3)),
        value => round(value),
    }
}

fn round(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
