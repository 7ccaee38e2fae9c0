//! Thin layer over the painter: paths from projected points, flat and graded fills, strokes, soft edges.

use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, LinearGradient, Paint, Path, PathBuilder, Pixmap, Point, RadialGradient,
    Shader, SpreadMode, Stroke, Transform,
};

use super::colour::Rgb;

/// A picture being painted.
pub(super) struct Canvas {
    pub(super) pixmap: Pixmap,
}

impl Canvas {
    /// An empty picture of `width` x `width` pixels.
    pub(super) fn new(width: u32) -> Self {
        let pixmap = Pixmap::new(width, width).expect("the configuration keeps the width between 16 and 512");
        Self { pixmap }
    }

    pub(super) fn fill(&mut self, path: Option<&Path>, colour: Rgb, alpha: f32) {
        self.fill_with(path, Shader::SolidColor(colour.paint(alpha)), Transform::identity());
    }

    pub(super) fn fill_moved(&mut self, path: Option<&Path>, colour: Rgb, alpha: f32, (x, y): (f32, f32)) {
        self.fill_with(
            path,
            Shader::SolidColor(colour.paint(alpha)),
            Transform::from_translate(x, y),
        );
    }

    /// Fills with colours that run from one point to another; `stops` are positions in 0..1 with colours.
    pub(super) fn fill_along(&mut self, path: Option<&Path>, from: Point, to: Point, stops: &[(f32, Rgb)]) {
        let shader = LinearGradient::new(from, to, graded(stops), SpreadMode::Pad, Transform::identity())
            .unwrap_or(Shader::SolidColor(middle(stops)));
        self.fill_with(path, shader, Transform::identity());
    }

    /// Fills with colours that run outwards from a point.
    pub(super) fn fill_around(&mut self, path: Option<&Path>, from: Point, radius: f32, stops: &[(f32, Rgb)]) {
        let shader = RadialGradient::new(
            from,
            from,
            radius,
            graded(stops),
            SpreadMode::Pad,
            Transform::identity(),
        )
        .unwrap_or(Shader::SolidColor(middle(stops)));
        self.fill_with(path, shader, Transform::identity());
    }

    pub(super) fn stroke(&mut self, path: Option<&Path>, colour: Rgb, alpha: f32, width: f32) {
        let Some(path) = path else { return };
        let paint = painted(Shader::SolidColor(colour.paint(alpha)));
        let stroke = Stroke {
            width: width.max(0.05),
            line_cap: LineCap::Round,
            ..Stroke::default()
        };
        self.pixmap
            .stroke_path(path, &paint, &stroke, Transform::identity(), None);
    }

    fn fill_with(&mut self, path: Option<&Path>, shader: Shader<'_>, transform: Transform) {
        // Shapes without area (a petal seen exactly from its edge) give no path: nothing to fill.
        let Some(path) = path else { return };
        self.pixmap
            .fill_path(path, &painted(shader), FillRule::Winding, transform, None);
    }
}

fn painted(shader: Shader<'_>) -> Paint<'_> {
    Paint {
        shader,
        anti_alias: true,
        ..Paint::default()
    }
}

fn graded(stops: &[(f32, Rgb)]) -> Vec<GradientStop> {
    stops
        .iter()
        .map(|&(position, colour)| GradientStop::new(position, colour.paint(1.0)))
        .collect()
}

fn middle(stops: &[(f32, Rgb)]) -> Color {
    stops
        .get(stops.len() / 2)
        .map_or(Color::BLACK, |stop| stop.1.paint(1.0))
}

/// A closed path through points.
pub(super) fn polygon(points: impl IntoIterator<Item = Point>) -> Option<Path> {
    let mut builder = PathBuilder::new();
    trace(&mut builder, points);
    builder.close();
    builder.finish()
}

/// An open path through points.
pub(super) fn line(points: impl IntoIterator<Item = Point>) -> Option<Path> {
    let mut builder = PathBuilder::new();
    trace(&mut builder, points);
    builder.finish()
}

fn trace(builder: &mut PathBuilder, points: impl IntoIterator<Item = Point>) {
    for (index, point) in points.into_iter().enumerate() {
        if index == 0 {
            builder.move_to(point.x, point.y);
        } else {
            builder.line_to(point.x, point.y);
        }
    }
}

/// A circle.
pub(super) fn circle(centre: Point, radius: f32) -> Option<Path> {
    PathBuilder::from_circle(centre.x, centre.y, radius.max(0.05))
}
