//! Quarter turns as classes of their own.

use std::sync::Arc;

use super::dataset::{Item, Source};

/// Adds every training item three times, turned by 90, 180 and 270 degrees, as an item of another class: four times as many
/// classes to learn from (Santoro et al., Meta-Learning with Memory-Augmented Neural Networks, ICML 2016; the usual protocol on
/// Omniglot, where a turned character is another character).
///
/// The new items stand behind all others; `train` and `labels` grow alike, turn by turn, and classes number
/// `classes..4 * classes` are the turned ones, in the order of the upright ones.
///
/// ```
/// use gradus_core::data::{Item, Part, Source, turns::add_quarter_turns};
/// let item = Item { source: Source::File("a.png".into()), class: 7, part: Part::Train, factors: vec![] };
/// let (mut items, mut train, mut labels) = (vec![item], vec![0], vec![0]);
/// add_quarter_turns(&mut items, &mut train, &mut labels, 1);
/// assert_eq!((train, labels), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
/// assert_eq!(items[3].source.name(), "a.png turned by 270 degrees");
/// ```
pub fn add_quarter_turns(items: &mut Vec<Item>, train: &mut Vec<usize>, labels: &mut Vec<u32>, classes: u32) {
    let upright: Vec<(usize, u32)> = train.iter().copied().zip(labels.iter().copied()).collect();
    for quarters in 1..=3 {
        for &(item, label) in &upright {
            let turned = Item {
                source: Source::Turned {
                    source: Arc::new(items[item].source.clone()),
                    quarters,
                },
                ..items[item].clone()
            };
            train.push(items.len());
            labels.push(label + classes * u32::from(quarters));
            items.push(turned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Part;
    use crate::data::image::{DEFAULT_PIXEL_LIMIT, decode_within};

    #[test]
    fn pixels_turn_clockwise() {
        let mut pixels = image::RgbImage::new(2, 1);
        pixels.put_pixel(0, 0, image::Rgb([9, 0, 0]));
        let drawn = Source::Drawn {
            name: "dot".to_owned(),
            pixels: Arc::new(pixels),
        };
        let item = Item {
            source: drawn,
            class: 0,
            part: Part::Train,
            factors: vec![1.0],
        };
        let (mut items, mut train, mut labels) = (vec![item], vec![0], vec![2]);
        add_quarter_turns(&mut items, &mut train, &mut labels, 5);
        assert_eq!(labels, [2, 7, 12, 17]);
        // The dot at the left of a lying pair: at the top, at the right, at the bottom.
        for (item, size, dot) in [(1, (1, 2), (0, 0)), (2, (2, 1), (1, 0)), (3, (1, 2), (0, 1))] {
            let turned = decode_within(&items[item].source, DEFAULT_PIXEL_LIMIT).unwrap();
            assert_eq!(turned.dimensions(), size);
            assert_eq!(turned.get_pixel(dot.0, dot.1).0, [9, 0, 0], "item {item}");
        }
    }
}
