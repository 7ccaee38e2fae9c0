//! How an image becomes the input of a model, and the JSON file beside a model that says so.

use std::path::{Path, PathBuf};

use gradus_core::data::transform::{Interpolation, Resize as TransformResize, TransformConfig, resized};
use image::{RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::OnnxError;

/// From pixels to the numbers a model takes: resize, cut the centre, `(pixel * scale - mean) / std`.
///
/// ```
/// use gradus_onnx::{Preprocessing, Resize};
/// let text = r#"{"resize": 256, "center_crop": 224, "filter": "bilinear", "mean": [0.485, 0.456, 0.406],
///     "std": [0.229, 0.224, 0.225], "scale": 0.00392156862745098, "layout": "nchw", "colour": "rgb"}"#;
/// let preprocessing = Preprocessing::parse(text, "example")?;
/// assert_eq!(preprocessing.resize, Some(Resize::ShortSide(256)));
/// let pixels = preprocessing.pixels(&image::RgbImage::new(400, 300))?;
/// assert_eq!(pixels.dimensions(), (224, 224));
/// # Ok::<(), gradus_onnx::OnnxError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// A number: the short side, the long one in proportion, cut to whole pixels (torchvision's `Resize`). `[height, width]`:
    /// exactly so. None: as it is.
    #[serde(default)]
    pub resize: Option<Resize>,
    /// Side of the square cut from the centre; the border is `round((size - crop) / 2)`, ties to even (torchvision's
    /// `CenterCrop`). None: everything.
    #[serde(default)]
    pub center_crop: Option<usize>,
    /// Antialiasing filter of the resize, Pillow's of that name.
    #[serde(default)]
    pub filter: Interpolation,
    /// Mean of each channel, in the order of the channels.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
    /// What a pixel of 0 to 255 is multiplied by first; default 1 / 255.
    #[serde(default = "one_by_255")]
    pub scale: f64,
    /// Order of the axes.
    #[serde(default)]
    pub layout: Layout,
    /// Order of the channels.
    #[serde(default)]
    pub colour: Colour,
}

fn one_by_255() -> f64 {
    1.0 / 255.0
}

/// To what size an image is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Resize {
    /// Its short side has so many pixels.
    ShortSide(usize),
    /// `[height, width]`.
    Exact([usize; 2]),
}

/// Order of the axes of a batch of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Batch, channels, height, width.
    #[default]
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
}

/// Order of the channels of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Colour {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// The most pixels a side may have.
const MOST_PIXELS: usize = 8192;

impl Preprocessing {
    /// What a run's evaluation does with an image.
    #[must_use]
    pub fn of(transform: &TransformConfig) -> Self {
        Self {
            resize: Some(Resize::ShortSide(transform.resize_pixels())),
            center_crop: Some(transform.size),
            filter: transform.interpolation,
            mean: transform.mean,
            std: transform.std,
            scale: one_by_255(),
            layout: Layout::Nchw,
            colour: Colour::Rgb,
        }
    }

    /// Nothing: for a model that takes pixels as they are, channels last.
    #[must_use]
    pub fn none() -> Self {
        Self {
            resize: None,
            center_crop: None,
            filter: Interpolation::default(),
            mean: [0.0; 3],
            std: [1.0; 3],
            scale: 1.0,
            layout: Layout::Nhwc,
            colour: Colour::Rgb,
        }
    }

    /// Pixels from 0 to 1, channels first: what most models take before mean and standard deviation.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            scale: one_by_255(),
            layout: Layout::Nchw,
            ..Self::none()
        }
    }

    /// The file that describes the preprocessing of a model: of the same name, `.json`.
    #[must_use]
    pub fn path_beside(model: &Path) -> PathBuf {
        model.with_extension("json")
    }

    /// Reads a description.
    ///
    /// # Errors
    /// If the file cannot be read or says something that cannot be done.
    pub fn read(path: &Path) -> Result<Self, OnnxError> {
        let text = std::fs::read_to_string(path).map_err(|error| OnnxError::Unreadable {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a description from text; `origin` is named in errors.
    ///
    /// # Errors
    /// If it says something that cannot be done.
    pub fn parse(text: &str, origin: &str) -> Result<Self, OnnxError> {
        let refuse = |problem: String| OnnxError::Preprocessing {
            origin: origin.to_owned(),
            problem,
        };
        let found: Self = serde_json::from_str(text).map_err(|error| {
            refuse(format!(
                "{error}. Expected is an object such as {{\"resize\": 256, \"center_crop\": 224, \"filter\": \"bilinear\", \"mean\": \
                 [0.485, 0.456, 0.406], \"std\": [0.229, 0.224, 0.225], \"scale\": 0.00392156862745098, \"layout\": \"nchw\", \
                 \"colour\": \"rgb\"}}"
            ))
        })?;
        found.validate(origin)?;
        Ok(found)
    }

    /// Checks that every number can be used; `origin` is named in errors.
    ///
    /// # Errors
    /// If one cannot.
    pub fn validate(&self, origin: &str) -> Result<(), OnnxError> {
        let found = self;
        let refuse = |problem: String| OnnxError::Preprocessing {
            origin: origin.to_owned(),
            problem,
        };
        let sides = match found.resize {
            None => vec![],
            Some(Resize::ShortSide(side)) => vec![side],
            Some(Resize::Exact(sides)) => sides.to_vec(),
        };
        if let Some(side) = sides
            .iter()
            .chain(&found.center_crop)
            .find(|side| !(1..=MOST_PIXELS).contains(*side))
        {
            return Err(refuse(format!(
                "a side of {side} pixels; it must have 1 to {MOST_PIXELS}"
            )));
        }
        if let (Some(crop), Some(least)) = (found.center_crop, sides.iter().min())
            && crop > *least
        {
            return Err(refuse(format!(
                "`center_crop` cuts {crop} pixels from images that `resize` makes {least} small"
            )));
        }
        if !(found.scale.is_finite() && found.scale > 0.0) {
            return Err(refuse(format!("`scale` must be above 0, but is {}", found.scale)));
        }
        if !found.mean.iter().all(|mean| mean.is_finite()) || !found.std.iter().all(|std| *std > 0.0 && std.is_finite())
        {
            return Err(refuse(format!(
                "`mean` must be finite and `std` above 0, but they are {:?} and {:?}",
                found.mean, found.std
            )));
        }
        Ok(())
    }

    /// The description as it is written beside a model.
    ///
    /// # Errors
    /// None in practice: every field can be written.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// Resizes and cuts.
    ///
    /// # Errors
    /// If the image is smaller than the part that is cut from it.
    pub fn pixels(&self, image: &RgbImage) -> Result<RgbImage, OnnxError> {
        let (width, height) = image.dimensions();
        if let (Some(Resize::ShortSide(short)), Some(crop)) = (self.resize, self.center_crop) {
            // The path of `gradus embed --run`: only the part that is kept is computed.
            let transform = TransformConfig {
                size: crop,
                resize: TransformResize::Pixels(short),
                interpolation: self.filter,
                ..TransformConfig::default()
            };
            let transform = transform.init().map_err(|error| self.refuse(error.to_string()))?;
            let pixels = transform.evaluation_pixels(image);
            return RgbImage::from_raw(crop as u32, crop as u32, pixels)
                .ok_or_else(|| self.refuse("the view has another size".to_owned()));
        }
        let image = match self.resize {
            None => image.clone(),
            Some(Resize::Exact([height, width])) => resized(image, width, height, self.filter),
            Some(Resize::ShortSide(short)) => {
                let least = width.min(height).max(1) as usize;
                resized(
                    image,
                    short * width as usize / least,
                    short * height as usize / least,
                    self.filter,
                )
            }
        };
        let Some(crop) = self.center_crop else {
            return Ok(image);
        };
        let (width, height) = (image.width() as usize, image.height() as usize);
        if width < crop || height < crop {
            return Err(self.refuse(format!(
                "an image of {width} x {height} pixels is smaller than the {crop} that `center_crop` cuts from it; add a `resize`"
            )));
        }
        let border = |size: usize| ((size - crop) as f64 / 2.0).round_ties_even() as u32;
        Ok(imageops::crop_imm(&image, border(width), border(height), crop as u32, crop as u32).to_image())
    }

    /// Pixels as the numbers a model takes, appended to `numbers`.
    ///
    /// # Shapes
    /// `[3, height, width]` or `[height, width, 3]`, as the layout says.
    pub fn numbers(&self, pixels: &RgbImage, numbers: &mut Vec<f32>) {
        let scale = self.scale as f32;
        let source = |channel: usize| match self.colour {
            Colour::Rgb => channel,
            Colour::Bgr => 2 - channel,
        };
        let number = |pixel: &[u8; 3], channel: usize| {
            (f32::from(pixel[source(channel)]) * scale - self.mean[channel]) / self.std[channel]
        };
        let pixels = pixels.as_raw().as_chunks::<3>().0;
        match self.layout {
            Layout::Nchw => {
                for channel in 0..3 {
                    numbers.extend(pixels.iter().map(|pixel| number(pixel, channel)));
                }
            }
            Layout::Nhwc => {
                for pixel in pixels {
                    numbers.extend([0, 1, 2].map(|channel| number(pixel, channel)));
                }
            }
        }
    }

    fn refuse(&self, problem: String) -> OnnxError {
        OnnxError::Preprocessing {
            origin: "of an image".to_owned(),
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Preprocessing {
        Preprocessing {
            resize: None,
            center_crop: Some(2),
            mean: [0.5, 0.25, 0.0],
            std: [0.5, 1.0, 2.0],
            ..Preprocessing::none()
        }
    }

    #[test]
    fn the_json_has_exactly_the_documented_keys_and_is_read_back() {
        let written = Preprocessing::of(&TransformConfig::default()).to_json().unwrap();
        let value: serde_json::Value = serde_json::from_str(&written).unwrap();
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "resize",
                "center_crop",
                "filter",
                "mean",
                "std",
                "scale",
                "layout",
                "colour"
            ]
        );
        assert_eq!(
            (value["resize"].as_u64(), value["center_crop"].as_u64()),
            (Some(256), Some(224))
        );
        assert_eq!(
            (value["layout"].as_str(), value["colour"].as_str()),
            (Some("nchw"), Some("rgb"))
        );
        assert_eq!(
            Preprocessing::parse(&written, "test").unwrap(),
            Preprocessing::of(&TransformConfig::default())
        );
    }

    #[test]
    fn pixels_are_cut_in_the_middle_ordered_and_normalised() {
        // A 4 x 3 image whose red is the column, green the row, blue 7; the border of one row is 0 (a half, to even).
        let image = RgbImage::from_fn(4, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let cut = example().pixels(&image).unwrap();
        assert_eq!(cut.as_raw(), &[1, 0, 7, 2, 0, 7, 1, 1, 7, 2, 1, 7]);
        let mut numbers = Vec::new();
        example().numbers(&cut, &mut numbers);
        assert_eq!(numbers[..3], [1.0, -0.25, 3.5]);
        let swapped = Preprocessing {
            colour: Colour::Bgr,
            layout: Layout::Nchw,
            ..example()
        };
        numbers.clear();
        swapped.numbers(&cut, &mut numbers);
        assert_eq!(
            numbers,
            [13.0, 13.0, 13.0, 13.0, -0.25, -0.25, 0.75, 0.75, 0.5, 1.0, 0.5, 1.0]
        );
    }

    #[test]
    fn sizes_follow_the_short_side_or_are_exact() {
        let image = RgbImage::new(375, 500);
        let size = |resize| {
            let preprocessing = Preprocessing {
                resize,
                center_crop: None,
                ..example()
            };
            preprocessing.pixels(&image).unwrap().dimensions()
        };
        assert_eq!(size(Some(Resize::ShortSide(256))), (256, 341));
        assert_eq!(size(Some(Resize::Exact([20, 30]))), (30, 20));
        assert_eq!(size(None), (375, 500));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let refused = |text: &str| Preprocessing::parse(text, "p.json").unwrap_err().to_string();
        let fixed = r#""mean": [0, 0, 0], "std": [1, 1, 1]"#;
        assert!(refused("[]").contains("p.json"));
        assert!(refused(&format!("{{{fixed}, \"rescale\": 2}}")).contains("rescale"));
        assert!(refused(r#"{"mean": [0, 0, 0]}"#).contains("std"));
        assert!(refused(&format!("{{{fixed}, \"resize\": 10, \"center_crop\": 20}}")).contains("center_crop"));
        assert!(refused(&format!("{{{fixed}, \"resize\": [0, 3]}}")).contains("0 pixels"));
        assert!(refused(&format!("{{{fixed}, \"scale\": -1}}")).contains("scale"));
        assert!(refused(r#"{"mean": [0, 0, 0], "std": [0, 1, 1]}"#).contains("std"));
        let error = Preprocessing {
            center_crop: Some(9),
            ..example()
        }
        .pixels(&RgbImage::new(8, 20))
        .unwrap_err();
        assert!(error.to_string().contains("8 x 20"), "{error}");
    }
}
