//! Writes the picture of the README: one flower, one known factor swept in each row.
//!
//! ```text
//! cargo run --release --example flora_sheet -- docs/images/flora.png
//! ```

use gradus_core::data::flora::{FloraConfig, contact_sheet, factor_sheet, generate};
use image::{GenericImage, RgbImage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("expected the file to write, for example docs/images/flora.png")?;
    let config = FloraConfig {
        species: 12,
        images: 9,
        size: 96,
        ..FloraConfig::default()
    };
    let species = contact_sheet(&generate(&config)?, &[1, 3, 5, 8], 9)?;
    let factors = factor_sheet(&config, 8, 9)?;
    let gap = 12;
    let width = species.width().max(factors.width());
    let mut sheet = RgbImage::from_pixel(width, species.height() + gap + factors.height(), image::Rgb([255; 3]));
    sheet.copy_from(&factors, 0, 0)?;
    sheet.copy_from(&species, 0, factors.height() + gap)?;
    sheet.save(&path)?;
    Ok(())
}
