//! Pictures of the data: what the species look like, and what each factor does.

use image::{RgbImage, imageops};

use super::factors::{Factors, MAX_TILT_DEG, Nuisance};
use super::species::Species;
use super::{FloraConfig, render};
use crate::data::{DataError, Dataset, Source};

/// Space between pictures, in pixels.
const GAP: u32 = 2;

/// A table of pictures: one row for each of the class numbers in `species`, its first `columns` images from left to right.
///
/// # Errors
/// [`DataError::Unusable`] if there is nothing to show, a number is not in the data set, or its images were not drawn
/// in memory.
pub fn contact_sheet(dataset: &Dataset, species: &[u32], columns: usize) -> Result<RgbImage, DataError> {
    let rows = species
        .iter()
        .map(|&number| {
            let class = dataset
                .classes
                .iter()
                .position(|class| class.number == number)
                .ok_or_else(|| {
                    DataError::Unusable(format!(
                        "no species number {number} to show: the data set has {} classes",
                        dataset.classes.len()
                    ))
                })?;
            dataset
                .items
                .iter()
                .filter(|item| item.class as usize == class)
                .take(columns)
                .map(|item| match &item.source {
                    Source::Drawn { pixels, .. } => Ok(pixels.as_ref()),
                    other => Err(DataError::Unusable(format!(
                        "{} is not a drawn image: a contact sheet shows data sets made by `generate`",
                        other.name()
                    ))),
                })
                .collect::<Result<Vec<&RgbImage>, DataError>>()
        })
        .collect::<Result<Vec<_>, DataError>>()?;
    arrange(&rows)
}

/// One species with all else fixed: one row for each factor, which runs through its range from left to right.
///
/// Rows are rotation, tilt, light and growth; circular factors stop one step before the full turn.
///
/// # Errors
/// Those of [`FloraConfig::validate`], and [`DataError::Unusable`] if `columns` is 0.
pub fn factor_sheet(config: &FloraConfig, species: u32, columns: usize) -> Result<RgbImage, DataError> {
    config.validate()?;
    let drawn = Species::draw(config.seed, species);
    let nuisance = Nuisance::plain(config.seed);
    let rows: Vec<Vec<RgbImage>> = (0..4)
        .map(|factor| {
            (0..columns)
                .map(|column| {
                    let share = column as f32 / columns.saturating_sub(1).max(1) as f32;
                    let turn = 360.0 * column as f32 / columns as f32;
                    let mut factors = Factors {
                        rotation_deg: 20.0,
                        tilt_deg: 25.0,
                        light_deg: 120.0,
                        growth: 0.85,
                    };
                    match factor {
                        0 => factors.rotation_deg = turn,
                        1 => factors.tilt_deg = share * MAX_TILT_DEG,
                        2 => factors.light_deg = turn,
                        _ => factors.growth = share,
                    }
                    render(&drawn, &factors, &nuisance, config.size)
                })
                .collect()
        })
        .collect();
    arrange(&rows.iter().map(|row| row.iter().collect()).collect::<Vec<_>>())
}

fn arrange(rows: &[Vec<&RgbImage>]) -> Result<RgbImage, DataError> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = rows
        .iter()
        .flatten()
        .map(|picture| picture.width().max(picture.height()))
        .max()
        .unwrap_or(0);
    if columns == 0 || cell == 0 {
        return Err(DataError::Unusable(
            "a sheet needs at least one row and one column".to_owned(),
        ));
    }
    let step = i64::from(cell + GAP);
    let extent = |count: usize| count as u32 * (cell + GAP) - GAP;
    let mut sheet = RgbImage::from_pixel(extent(columns), extent(rows.len()), image::Rgb([255; 3]));
    for (row, pictures) in rows.iter().enumerate() {
        for (column, picture) in pictures.iter().enumerate() {
            imageops::replace(&mut sheet, *picture, column as i64 * step, row as i64 * step);
        }
    }
    Ok(sheet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::flora::generate;

    #[test]
    fn a_sheet_shows_the_rows_asked_for() {
        let flora = generate(&FloraConfig {
            species: 3,
            images: 4,
            size: 16,
            seed: 0,
        })
        .unwrap();
        let sheet = contact_sheet(&flora, &[3, 1], 2).unwrap();
        assert_eq!(sheet.dimensions(), (2 * 16 + GAP, 2 * 16 + GAP));
        let Source::Drawn { pixels, .. } = &flora.items[1].source else {
            panic!("not drawn")
        };
        // Class 1 is the second row; its second image stands on the right.
        assert_eq!(imageops::crop_imm(&sheet, 18, 18, 16, 16).to_image(), **pixels);
        assert!(
            contact_sheet(&flora, &[4], 2)
                .unwrap_err()
                .to_string()
                .contains("number 4")
        );
        assert!(contact_sheet(&flora, &[], 2).is_err());
        assert!(contact_sheet(&flora, &[1], 0).is_err());
    }

    #[test]
    fn a_factor_sheet_has_a_row_for_each_factor() {
        let config = FloraConfig {
            size: 16,
            ..FloraConfig::default()
        };
        assert_eq!(
            factor_sheet(&config, 5, 3).unwrap().dimensions(),
            (3 * 16 + 2 * GAP, 4 * 16 + 3 * GAP)
        );
        assert!(factor_sheet(&config, 5, 1).is_ok());
        assert!(factor_sheet(&config, 5, 0).is_err());
        assert!(factor_sheet(&FloraConfig { size: 3, ..config }, 5, 3).is_err());
    }
}
