//! From RGB pixels to what a network sees: crop, antialiased resize, augmentation, normalisation.
//!
//! Geometry and parameter distributions are torchvision's, resampling is Pillow's (antialiased: the filter widens with
//! the reduction), so that weights trained there see here the images they know. Every random value is a pure function
//! of the seed given; each kind of augmentation draws from a stream of its own, so that switching one on does not move
//! the others.

mod colour;
mod pack;
mod perspective;
mod pillow;

use std::cell::RefCell;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ImageView, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::colour::Colour;
use self::pack::{Normalisation, pack};
use self::perspective::Path;
use crate::random::{Rng, SliceRandom, stream};

/// From this edge on, `resize = "auto"` crops the border away, as the papers do at 224 pixels.
const LARGE_VIEW: usize = 160;

/// The largest edge a view may have, far above any network's input and far below any memory.
const MAX_SIZE: usize = 8192;

/// Settings of the views of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TransformConfig {
    /// Edge of the square view in pixels (default 224).
    pub size: usize,
    /// Short side before the centre crop of evaluation, in pixels, or `"auto"`: 8/7 of `size` (the usual 256 for 224) for
    /// views of 160 pixels and more, `size` itself for smaller ones, which have no border to give away.
    pub resize: Resize,
    /// Least and greatest share of the image's area in a training crop (default 0.08 to 1, torchvision's).
    pub crop_scale: [f64; 2],
    /// Least and greatest ratio of width to height of a training crop (default 3/4 to 4/3, torchvision's).
    pub crop_ratio: [f64; 2],
    /// Probability of a horizontal flip (default 0.5).
    pub flip: f64,
    /// Brightness is multiplied by a factor in 1 ± this (default 0: off).
    pub brightness: f64,
    /// Contrast is multiplied by a factor in 1 ± this (default 0: off).
    pub contrast: f64,
    /// Saturation is multiplied by a factor in 1 ± this (default 0: off).
    pub saturation: f64,
    /// Hue is turned by up to ± this share of the colour circle, at most 0.5 (default 0: off).
    pub hue: f64,
    /// Probability that a rectangle of 2 to 33 % of the view is erased (default 0; Zhong et al., 2020).
    pub random_erasing: f64,
    /// Degrees by which graded views turn at full strength (default 0: SSR's views do not turn).
    pub graded_rotation: f64,
    /// Mean of each channel, of values in 0..1 (default ImageNet's).
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of values in 0..1 (default ImageNet's).
    pub std: [f32; 3],
    /// How pixels are interpolated (default bilinear).
    pub interpolation: Interpolation,
}

impl Default for TransformConfig {
    fn default() -> Self {
        Self {
            size: 224,
            resize: Resize::Auto,
            crop_scale: [0.08, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip: 0.5,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            hue: 0.0,
            random_erasing: 0.0,
            graded_rotation: 0.0,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            interpolation: Interpolation::Bilinear,
        }
    }
}

/// The short side of an image before the centre crop of evaluation; written `"auto"` or as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resize {
    /// 8/7 of the view's size, rounded; the size itself below 160 pixels.
    #[default]
    Auto,
    /// So many pixels.
    Pixels(usize),
}

impl Serialize for Resize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Pixels(pixels) => serializer.serialize_u64(*pixels as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Resize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Resize;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("\"auto\" or a number of pixels")
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Resize, E> {
                match value {
                    "auto" => Ok(Resize::Auto),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(value), &self)),
                }
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Resize, E> {
                usize::try_from(value).map(Resize::Pixels).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Resize, E> {
                let unexpected = || E::invalid_value(serde::de::Unexpected::Signed(value), &self);
                usize::try_from(value).map(Resize::Pixels).map_err(|_| unexpected())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How pixels are interpolated; all antialias when an image shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// Triangle filter.
    #[default]
    Bilinear,
    /// Catmull-Rom cubic (a = -0.5), as in Pillow.
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

impl Interpolation {
    fn filter(self) -> FilterType {
        match self {
            Self::Bilinear => FilterType::Bilinear,
            Self::Bicubic => FilterType::CatmullRom,
            Self::Lanczos => FilterType::Lanczos3,
        }
    }
}

/// A setting of [`TransformConfig`] that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("transform setting {setting} must be {expected}, but is {found}")]
pub struct TransformError {
    /// The setting, as written in the configuration.
    pub setting: &'static str,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl TransformConfig {
    /// The short side before the centre crop of evaluation, in pixels.
    #[must_use]
    pub fn resize_pixels(&self) -> usize {
        match self.resize {
            Resize::Auto if self.size >= LARGE_VIEW => (self.size as f64 * 8.0 / 7.0).round() as usize,
            Resize::Auto => self.size,
            Resize::Pixels(pixels) => pixels,
        }
    }

    /// Checks the settings and makes the transform.
    ///
    /// # Errors
    /// [`TransformError`], naming the setting, what it must be and what it is.
    pub fn init(&self) -> Result<Transform, TransformError> {
        let require = |setting, holds: bool, expected: &str, found: String| {
            if holds {
                Ok(())
            } else {
                Err(TransformError {
                    setting,
                    expected: expected.to_owned(),
                    found,
                })
            }
        };
        let within = |setting, value: f64, most: f64| {
            let expected = if most.is_finite() {
                format!("between 0 and {most}")
            } else {
                "at least 0".to_owned()
            };
            require(
                setting,
                value >= 0.0 && value <= most && value.is_finite(),
                &expected,
                value.to_string(),
            )
        };
        let ordered = |[least, greatest]: [f64; 2]| least > 0.0 && least <= greatest && greatest.is_finite();

        let size = self.size;
        require(
            "size",
            (1..=MAX_SIZE).contains(&size),
            &format!("between 1 and {MAX_SIZE} pixels"),
            size.to_string(),
        )?;
        let resize = self.resize_pixels();
        let expected = format!(
            "\"auto\" or a number of pixels from the size of the view, {size}, to {}",
            2 * MAX_SIZE
        );
        require(
            "resize",
            resize >= size && resize <= 2 * MAX_SIZE,
            &expected,
            resize.to_string(),
        )?;
        let scale = self.crop_scale;
        let expected = "two numbers above 0 and at most 1, the smaller first";
        require(
            "crop-scale",
            ordered(scale) && scale[1] <= 1.0,
            expected,
            format!("{scale:?}"),
        )?;
        let ratio = self.crop_ratio;
        require(
            "crop-ratio",
            ordered(ratio),
            "two numbers above 0, the smaller first",
            format!("{ratio:?}"),
        )?;
        within("flip", self.flip, 1.0)?;
        within("brightness", self.brightness, f64::INFINITY)?;
        within("contrast", self.contrast, f64::INFINITY)?;
        within("saturation", self.saturation, f64::INFINITY)?;
        within("hue", self.hue, 0.5)?;
        within("random-erasing", self.random_erasing, 1.0)?;
        within("graded-rotation", self.graded_rotation, 180.0)?;
        let finite = self.mean.iter().all(|value| value.is_finite());
        require("mean", finite, "three finite numbers", format!("{:?}", self.mean))?;
        let positive = self.std.iter().all(|&value| value > 0.0 && value.is_finite());
        require("std", positive, "three numbers above 0", format!("{:?}", self.std))?;

        Ok(Transform { config: self.clone() })
    }
}

/// Makes views of images.
///
/// # Shapes
/// Every view is `[3, size, size]`, channel after channel, normalised.
///
/// An image without pixels gives a black view.
///
/// ```
/// use gradus_core::data::transform::TransformConfig;
/// let transform = TransformConfig { size: 8, ..TransformConfig::default() }.init()?;
/// let image = image::RgbImage::new(20, 10);
/// assert_eq!(transform.evaluate(&image).len(), 3 * 8 * 8);
/// assert_eq!(transform.train(&image, 5), transform.train(&image, 5));
/// # Ok::<(), gradus_core::data::transform::TransformError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Transform {
    config: TransformConfig,
}

/// A rectangle of an image, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Crop<T> {
    left: T,
    top: T,
    width: T,
    height: T,
}

/// The random choices behind a training view.
#[derive(Debug, Clone, PartialEq)]
struct View {
    crop: Crop<u32>,
    flip: bool,
    colours: Vec<Colour>,
    /// Erased part of the view.
    erased: Option<Crop<usize>>,
}

/// Streams below the seed of a view.
mod draw {
    pub(super) const CROP: u64 = 0;
    pub(super) const FLIP: u64 = 1;
    pub(super) const COLOUR: u64 = 2;
    pub(super) const ERASE: u64 = 3;
}

/// Augmentation strength of a level: `tanh(0.2 level)`, so 0, .197, .380, .537, .664, .762 (Fu et al., AAAI 2021).
#[must_use]
pub fn strength(level: usize) -> f64 {
    (0.2 * level as f64).tanh()
}

impl Transform {
    /// The settings this transform was made from.
    #[must_use]
    pub fn config(&self) -> &TransformConfig {
        &self.config
    }

    /// Edge of the view in pixels.
    #[must_use]
    pub fn size(&self) -> usize {
        self.config.size
    }

    /// Values of a view: `3 * size * size`.
    #[must_use]
    pub fn view_len(&self) -> usize {
        3 * self.config.size * self.config.size
    }

    /// The evaluation view: the short side resized to `resize`, the centre cropped to `size`.
    ///
    /// # Shapes
    /// `[3, size, size]`
    #[must_use]
    pub fn evaluate(&self, image: &RgbImage) -> Vec<f32> {
        self.in_new_memory(|view| self.evaluate_into(image, view))
    }

    /// [`Transform::evaluate`] into memory at hand, such as a place of a batch.
    ///
    /// # Panics
    /// If `view` has not [`Transform::view_len`] values.
    pub fn evaluate_into(&self, image: &RgbImage, view: &mut [f32]) {
        self.check_length(view);
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            return self.black(view);
        }
        self.evaluation_view(image, |pixels| self.pack(pixels, false, view));
    }

    /// The evaluation view before normalisation.
    ///
    /// # Shapes
    /// `[size, size, 3]`, interleaved.
    #[must_use]
    pub fn evaluation_pixels(&self, image: &RgbImage) -> Vec<u8> {
        if image.width() == 0 || image.height() == 0 {
            return vec![0; self.view_len()];
        }
        self.evaluation_view(image, <[u8]>::to_vec)
    }

    /// Calls `work` with the pixels of the evaluation view of an image that has some.
    fn evaluation_view<R>(&self, image: &RgbImage, work: impl FnOnce(&[u8]) -> R) -> R {
        let (width, height) = image.dimensions();
        let (size, short) = (self.config.size as f64, self.config.resize_pixels() as f64);
        let (w, h) = (f64::from(width), f64::from(height));
        // The long side is cut to whole pixels, as torchvision does.
        let (resized_width, resized_height) = if w < h {
            (short, (short * h / w).floor())
        } else {
            ((short * w / h).floor(), short)
        };
        let left = ((resized_width - size) / 2.0).round_ties_even();
        let top = ((resized_height - size) / 2.0).round_ties_even();
        // Only the part that is kept is computed.
        let (left, top) = (left as usize, top as usize);
        let size = self.config.size;
        work(&pillow::resize(
            image,
            [resized_width as usize, resized_height as usize],
            left..left + size,
            top..top + size,
            self.config.interpolation,
        ))
    }

    /// The training view of a seed: RandomResizedCrop, flip, colour jitter, random erasing.
    ///
    /// # Shapes
    /// `[3, size, size]`
    #[must_use]
    pub fn train(&self, image: &RgbImage, seed: u64) -> Vec<f32> {
        self.in_new_memory(|view| self.train_into(image, seed, view))
    }

    /// [`Transform::train`] into memory at hand, such as a place of a batch.
    ///
    /// # Panics
    /// If `view` has not [`Transform::view_len`] values.
    pub fn train_into(&self, image: &RgbImage, seed: u64, view: &mut [f32]) {
        self.check_length(view);
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            return self.black(view);
        }
        let choices = self.view(width, height, seed);
        self.resize_crop(image, choices.crop, |pixels| {
            if choices.colours.is_empty() {
                self.pack(pixels, choices.flip, view);
            } else {
                let mut pixels: Vec<f32> = pixels.iter().map(|&value| f32::from(value)).collect();
                for &colour in &choices.colours {
                    colour.apply(&mut pixels);
                }
                self.pack(&pixels, choices.flip, view);
            }
        });
        self.erase(view, choices.erased);
    }

    /// The training view of a seed, augmented further at the strength t = [`strength`] of a level.
    ///
    /// On top of the very crop, flip and colours of [`Transform::train`] with the same seed, a part of 1 - t of the
    /// crop's area is kept, its corners are moved by up to t/4 of its sides (a perspective distortion, seen without
    /// black borders, whose width would betray the level), and brightness, contrast and saturation are multiplied by
    /// 1 + t/2 or 1 - t/2. Where the part lies, where its corners move and the signs depend on the seed only: the levels
    /// of a seed lie on one path away from the training view, which is level 0.
    ///
    /// # Shapes
    /// `[3, size, size]`
    #[must_use]
    pub fn graded(&self, image: &RgbImage, level: usize, seed: u64) -> Vec<f32> {
        self.in_new_memory(|view| self.graded_into(image, level, seed, view))
    }

    /// [`Transform::graded`] into memory at hand, such as a place of a batch.
    ///
    /// # Panics
    /// If `view` has not [`Transform::view_len`] values.
    pub fn graded_into(&self, image: &RgbImage, level: usize, seed: u64, view: &mut [f32]) {
        let (width, height) = image.dimensions();
        if level == 0 || width == 0 || height == 0 {
            return self.train_into(image, seed, view);
        }
        self.check_length(view);
        let t = strength(level);
        let choices = self.view(width, height, seed);
        let path = Path::draw(seed);
        let mut pixels = self.warp(
            image,
            path.corners(choices.crop, t, self.config.graded_rotation.to_radians()),
        );
        for colour in choices.colours.iter().copied().chain(path.colours(t)) {
            colour.apply(&mut pixels);
        }
        self.pack(&pixels, choices.flip, view);
        self.erase(view, choices.erased);
    }

    /// The graded views of levels 1 to `levels`, one after the other.
    ///
    /// # Shapes
    /// `[levels, 3, size, size]`
    #[must_use]
    pub fn graded_levels(&self, image: &RgbImage, levels: usize, seed: u64) -> Vec<f32> {
        (1..=levels).flat_map(|level| self.graded(image, level, seed)).collect()
    }

    /// The random choices of a training view.
    fn view(&self, width: u32, height: u32, seed: u64) -> View {
        let config = &self.config;
        let flip = stream(seed, &[draw::FLIP]).random::<f64>() < config.flip;
        View {
            crop: self.draw_crop(width, height, seed),
            flip,
            colours: self.draw_colours(seed),
            erased: self.draw_erased(seed),
        }
    }

    /// RandomResizedCrop: ten attempts at an area and a log-uniform ratio, then the largest centre crop of a fitting ratio.
    fn draw_crop(&self, width: u32, height: u32, seed: u64) -> Crop<u32> {
        let mut random = stream(seed, &[draw::CROP]);
        let [least, greatest] = self.config.crop_scale;
        let [narrow, wide] = self.config.crop_ratio;
        let (w, h) = (f64::from(width), f64::from(height));
        for _ in 0..10 {
            let area = w * h * random.random_range(least..=greatest);
            let ratio = random.random_range(narrow.ln()..=wide.ln()).exp();
            let (crop_width, crop_height) = ((area * ratio).sqrt().round(), (area / ratio).sqrt().round());
            if crop_width >= 1.0 && crop_width <= w && crop_height >= 1.0 && crop_height <= h {
                let (crop_width, crop_height) = (crop_width as u32, crop_height as u32);
                let top = random.random_range(0..=height - crop_height);
                let left = random.random_range(0..=width - crop_width);
                return Crop {
                    left,
                    top,
                    width: crop_width,
                    height: crop_height,
                };
            }
        }
        let ratio = (w / h).clamp(narrow, wide);
        let crop_width = (h * ratio).round().clamp(1.0, w) as u32;
        let crop_height = (w / ratio).round().clamp(1.0, h) as u32;
        Crop {
            left: (width - crop_width) / 2,
            top: (height - crop_height) / 2,
            width: crop_width,
            height: crop_height,
        }
    }

    /// Colour jitter: factors in random order.
    fn draw_colours(&self, seed: u64) -> Vec<Colour> {
        let config = &self.config;
        let mut random = stream(seed, &[draw::COLOUR]);
        let mut factor = |spread: f64| random.random_range((1.0 - spread).max(0.0)..=1.0 + spread) as f32;
        // All four are drawn even when off, so that switching one on does not move the others.
        let brightness = Colour::Brightness(factor(config.brightness));
        let contrast = Colour::Contrast(factor(config.contrast));
        let saturation = Colour::Saturation(factor(config.saturation));
        let hue = Colour::Hue(random.random_range(-config.hue..=config.hue) as f32);
        let mut colours = vec![
            (config.brightness, brightness),
            (config.contrast, contrast),
            (config.saturation, saturation),
            (config.hue, hue),
        ];
        colours.shuffle(&mut random);
        colours
            .into_iter()
            .filter(|&(spread, _)| spread > 0.0)
            .map(|(_, colour)| colour)
            .collect()
    }

    /// Random erasing (Zhong et al., 2020): ten attempts at an area of 2 to 33 % and a ratio of 0.3 to 3.3.
    fn draw_erased(&self, seed: u64) -> Option<Crop<usize>> {
        let mut random = stream(seed, &[draw::ERASE]);
        if random.random::<f64>() >= self.config.random_erasing {
            return None;
        }
        let size = self.config.size;
        for _ in 0..10 {
            let area = (size * size) as f64 * random.random_range(0.02..=0.33);
            let ratio = random.random_range(0.3_f64.ln()..=3.3_f64.ln()).exp();
            let height = (area * ratio).sqrt().round() as usize;
            let width = (area / ratio).sqrt().round() as usize;
            if (1..size).contains(&height) && (1..size).contains(&width) {
                let top = random.random_range(0..=size - height);
                let left = random.random_range(0..=size - width);
                return Some(Crop {
                    left,
                    top,
                    width,
                    height,
                });
            }
        }
        None
    }

    /// A view in memory of its own.
    fn in_new_memory(&self, make: impl FnOnce(&mut [f32])) -> Vec<f32> {
        let mut view = vec![0.0; self.view_len()];
        make(&mut view);
        view
    }

    fn check_length(&self, view: &[f32]) {
        assert_eq!(view.len(), self.view_len(), "a view has 3 * size * size values");
    }

    /// A black view, for images without pixels.
    fn black(&self, view: &mut [f32]) {
        self.pack(&vec![0_u8; self.view_len()], false, view);
    }

    /// Interleaved values 0..255 to normalised channels.
    fn pack<T: Copy + Into<f32>>(&self, pixels: &[T], flip: bool, view: &mut [f32]) {
        let TransformConfig { size, mean, std, .. } = self.config;
        pack(pixels, size, flip, Normalisation { mean, std }, view);
    }

    /// Resizes a crop to the view; pixels outside the crop have no influence, as when it is cut out first.
    fn resize_crop<R>(&self, image: &RgbImage, crop: Crop<u32>, work: impl FnOnce(&[u8]) -> R) -> R {
        let (size, interpolation) = (self.config.size, self.config.interpolation);
        let cut = TypedCroppedImage::from_ref(&source(image), crop.left, crop.top, crop.width, crop.height)
            .map(|cut| resample(&cut, None, size, size, interpolation, work));
        cut.expect("a training crop lies inside its image")
    }

    /// Resizes a rectangle with fractional borders; pixels around it have their part in the borders.
    fn resize_box<R>(
        &self,
        image: &RgbImage,
        crop: Crop<f64>,
        width: usize,
        height: usize,
        work: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let (left, across) = inside(crop.left, crop.width, f64::from(image.width()));
        let (top, down) = inside(crop.top, crop.height, f64::from(image.height()));
        let crop = Crop {
            left,
            top,
            width: across,
            height: down,
        };
        resample(
            &source(image),
            Some(crop),
            width,
            height,
            self.config.interpolation,
            work,
        )
    }

    /// The view whose corners are the given points of the image (top left, top right, bottom right, bottom left), as
    /// interleaved values 0..255.
    ///
    /// The points' bounding box is resized to the scale of the view first, which antialiases; the projective map is then
    /// sampled bilinearly in it. Points outside the image see its border.
    fn warp(&self, image: &RgbImage, corners: [[f64; 2]; 4]) -> Vec<f32> {
        let size = self.config.size;
        let bounds = |axis: usize, most: f64| {
            let low = corners
                .iter()
                .map(|corner| corner[axis])
                .fold(f64::INFINITY, f64::min)
                .clamp(0.0, most);
            let high = corners
                .iter()
                .map(|corner| corner[axis])
                .fold(f64::NEG_INFINITY, f64::max)
                .clamp(0.0, most);
            // At least a tenth of a pixel, that a box squeezed against the border does not vanish.
            inside(low.min(most - 0.1), (high - low).max(0.1), most)
        };
        let (left, width) = bounds(0, f64::from(image.width()));
        let (top, height) = bounds(1, f64::from(image.height()));
        // Scale: the mean length of opposite sides becomes the size of the view.
        let side = |a: usize, b: usize| f64::hypot(corners[a][0] - corners[b][0], corners[a][1] - corners[b][1]);
        let pixels = |extent: f64, sides: f64| {
            let scaled = (extent * 2.0 * size as f64 / sides.max(1e-9)).ceil();
            scaled.clamp(1.0, 4.0 * size as f64) as usize
        };
        let across = pixels(width, side(0, 1) + side(3, 2));
        let down = pixels(height, side(0, 3) + side(1, 2));
        let part_corners = corners.map(|[x, y]| {
            [
                (x - left) / width * across as f64 - 0.5,
                (y - top) / height * down as f64 - 0.5,
            ]
        });
        let part = Crop {
            left,
            top,
            width,
            height,
        };
        self.resize_box(image, part, across, down, |pixels| {
            perspective::sample(pixels, across, down, part_corners, size)
        })
    }

    /// Sets the erased part to the mean colour, which is 0 after normalisation.
    fn erase(&self, values: &mut [f32], erased: Option<Crop<usize>>) {
        let Some(Crop {
            left,
            top,
            width,
            height,
        }) = erased
        else {
            return;
        };
        let size = self.config.size;
        for channel in values.chunks_exact_mut(size * size) {
            for row in channel.chunks_exact_mut(size).skip(top).take(height) {
                row[left..left + width].fill(0.0);
            }
        }
    }
}

/// An image in another size, antialiased where it shrinks.
#[must_use]
pub fn resized(image: &RgbImage, width: usize, height: usize, interpolation: Interpolation) -> RgbImage {
    let (width, height) = (width.max(1), height.max(1));
    if image.width() == 0 || image.height() == 0 {
        return RgbImage::new(width as u32, height as u32);
    }
    let pixels = pillow::resize(image, [width, height], 0..width, 0..height, interpolation);
    RgbImage::from_raw(width as u32, height as u32, pixels).expect("three bytes for each pixel")
}

/// A view of an image's pixels for the resizer.
fn source(image: &RgbImage) -> TypedImageRef<'_, U8x3> {
    TypedImageRef::from_buffer(image.width(), image.height(), image.as_raw())
        .expect("an RGB image holds three bytes for each pixel")
}

/// Start and extent of an interval moved and cut to lie within 0..most, rounding included.
fn inside(start: f64, extent: f64, most: f64) -> (f64, f64) {
    let start = start.clamp(0.0, most.next_down());
    let mut extent = extent.min(most - start);
    while start + extent > most {
        extent = extent.next_down();
    }
    (start, extent)
}

thread_local! {
    /// The resizer, which keeps its buffers between images, and the memory of its result.
    static RESIZER: RefCell<(Resizer, Vec<u8>)> = RefCell::new((Resizer::new(), Vec::new()));
}

/// Calls `work` with the resized pixels, in memory that is used again for the thread's next image.
fn resample<R>(
    image: &impl ImageView<Pixel = U8x3>,
    crop: Option<Crop<f64>>,
    width: usize,
    height: usize,
    interpolation: Interpolation,
    work: impl FnOnce(&[u8]) -> R,
) -> R {
    let mut options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(interpolation.filter()));
    if let Some(crop) = crop {
        options = options.crop(crop.left, crop.top, crop.width, crop.height);
    }
    RESIZER.with_borrow_mut(|(resizer, memory)| {
        let length = 3 * width * height;
        if memory.len() < length {
            memory.resize(length, 0);
        }
        let pixels = &mut memory[..length];
        let mut target = TypedImage::<U8x3>::from_buffer(width as u32, height as u32, pixels)
            .expect("the target holds three bytes for each pixel");
        resizer
            .resize_typed(image, &mut target, &options)
            .expect("the crop was cut to lie inside the image");
        work(pixels)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pattern of tools/golden/resize.py.
    fn pattern(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([0, 1, 2].map(|c| ((x * 3 + y * 2 + c * 40 + (x * y + c) % 7 * 9) % 256) as u8))
        })
    }

    /// Settings under which a view holds the bytes 0..255 themselves.
    fn plain(size: usize) -> TransformConfig {
        TransformConfig {
            size,
            mean: [0.0; 3],
            std: [1.0 / 255.0; 3],
            ..TransformConfig::default()
        }
    }

    /// Channels to interleaved pixels.
    fn interleaved(view: &[f32]) -> Vec<f32> {
        let area = view.len() / 3;
        (0..view.len())
            .map(|index| view[index % 3 * area + index / 3])
            .collect()
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        let sum: f64 = a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        (sum / a.len() as f64).sqrt()
    }

    fn worst(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    }

    #[derive(Deserialize)]
    struct Golden {
        evaluate: Vec<Case>,
        crop: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        width: u32,
        height: u32,
        #[serde(default)]
        resize: usize,
        #[serde(default)]
        r#box: [u32; 4],
        size: usize,
        filter: Interpolation,
        pixels: Vec<f32>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/resize.json")).unwrap()
    }

    #[test]
    fn evaluation_views_are_those_of_pillow_and_torchvision() {
        for case in golden().evaluate {
            let config = TransformConfig {
                resize: Resize::Pixels(case.resize),
                interpolation: case.filter,
                ..plain(case.size)
            };
            let view = interleaved(&config.init().unwrap().evaluate(&pattern(case.width, case.height)));
            let worst = worst(&view, &case.pixels);
            // One grey level: the two passes are rounded in between, in another order. Filters that overshoot are also
            // cut to 0..255 in between, which shows at the pattern's hard edges.
            let (most, name) = (
                if case.filter == Interpolation::Bilinear {
                    1.01
                } else {
                    4.0
                },
                case.filter,
            );
            let mean = view.iter().zip(&case.pixels).map(|(a, b)| (a - b).abs()).sum::<f32>() / view.len() as f32;
            assert!(
                worst <= most && mean < 0.4,
                "{} x {} {name:?}: {worst}, mean {mean}",
                case.width,
                case.height
            );
        }
    }

    #[test]
    fn training_crops_are_resized_as_by_pillow() {
        for case in golden().crop {
            let transform = TransformConfig {
                interpolation: case.filter,
                ..plain(case.size)
            }
            .init()
            .unwrap();
            let [left, top, width, height] = case.r#box;
            let crop = Crop {
                left,
                top,
                width,
                height,
            };
            let pixels: Vec<f32> = transform.resize_crop(&pattern(case.width, case.height), crop, |pixels| {
                pixels.iter().map(|&value| f32::from(value)).collect()
            });
            let worst = worst(&pixels, &case.pixels);
            assert!(worst <= 1.01, "{:?}: {worst}", case.filter);
        }
    }

    #[test]
    fn normalisation_is_value_minus_mean_over_deviation() {
        let image = RgbImage::from_pixel(9, 9, image::Rgb([255, 0, 51]));
        let config = TransformConfig {
            size: 2,
            mean: [0.5, 0.25, 0.1],
            std: [0.5, 0.1, 2.0],
            ..plain(2)
        };
        let expected: Vec<f32> = [1.0, -2.5, 0.05].iter().flat_map(|&value| [value; 4]).collect();
        let view = config.init().unwrap().evaluate(&image);
        assert!(worst(&view, &expected) < 1e-6, "{view:?}");
    }

    #[test]
    fn views_depend_on_the_seed_and_nothing_else() {
        let config = TransformConfig {
            brightness: 0.4,
            hue: 0.1,
            random_erasing: 0.5,
            ..plain(20)
        };
        let (a, b) = (config.init().unwrap(), config.init().unwrap());
        let image = pattern(50, 33);
        for seed in 0..20 {
            assert_eq!(a.train(&image, seed), b.train(&image, seed));
            assert_eq!(a.graded(&image, 3, seed), b.graded(&image, 3, seed));
            assert_ne!(a.train(&image, seed), a.train(&image, seed + 1));
        }
    }

    #[test]
    fn crops_lie_inside_and_have_the_areas_and_ratios_asked_for() {
        let transform = TransformConfig {
            crop_scale: [0.2, 0.6],
            ..plain(8)
        }
        .init()
        .unwrap();
        let (mut areas, mut lefts) = (Vec::new(), Vec::new());
        for seed in 0..2000 {
            let crop = transform.draw_crop(300, 200, seed);
            assert!(
                crop.left + crop.width <= 300 && crop.top + crop.height <= 200,
                "{crop:?}"
            );
            let ratio = f64::from(crop.width) / f64::from(crop.height);
            assert!((0.74..1.35).contains(&ratio), "{crop:?}");
            areas.push(f64::from(crop.width * crop.height) / 60_000.0);
            lefts.push(f64::from(crop.left) / f64::from(300 - crop.width).max(1.0));
        }
        assert!(areas.iter().all(|area| (0.195..0.605).contains(area)));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean(&areas) - 0.4).abs() < 0.01, "{}", mean(&areas));
        assert!((mean(&lefts) - 0.5).abs() < 0.02, "{}", mean(&lefts));
    }

    #[test]
    fn extreme_shapes_still_give_views() {
        let config = TransformConfig {
            brightness: 0.2,
            hue: 0.5,
            random_erasing: 1.0,
            ..plain(12)
        };
        let transform = config.init().unwrap();
        for (width, height) in [(1, 1), (1, 3000), (3000, 1), (2, 2), (11, 12), (12, 12), (4000, 3)] {
            let image = pattern(width, height);
            for view in [
                transform.evaluate(&image),
                transform.train(&image, 3),
                transform.graded(&image, 5, 3),
            ] {
                assert_eq!(view.len(), 3 * 144, "{width} x {height}");
                assert!(
                    view.iter().all(|value| (-0.01..=255.01).contains(value)),
                    "{width} x {height}"
                );
            }
        }
        // Nothing to see, but no panic: a black view.
        let nothing = transform.evaluate(&RgbImage::new(0, 7));
        assert!(nothing.iter().all(|&value| value == 0.0) && nothing == transform.graded(&RgbImage::new(7, 0), 2, 1));
        let tiny = TransformConfig {
            random_erasing: 1.0,
            ..plain(1)
        }
        .init()
        .unwrap();
        assert_eq!(tiny.train(&pattern(5, 5), 0).len(), 3);
    }

    #[test]
    fn a_single_pixel_is_enlarged_to_its_colour() {
        let image = RgbImage::from_pixel(1, 1, image::Rgb([7, 80, 200]));
        let transform = plain(5).init().unwrap();
        for view in [transform.evaluate(&image), transform.train(&image, 1)] {
            let expected: Vec<f32> = [7.0, 80.0, 200.0].iter().flat_map(|&value| [value; 25]).collect();
            assert!(worst(&view, &expected) < 1e-3, "{view:?}");
        }
    }

    /// The whole image, not flipped, not changed.
    fn still(size: usize) -> TransformConfig {
        TransformConfig {
            crop_scale: [1.0, 1.0],
            crop_ratio: [1.0, 1.0],
            flip: 0.0,
            ..plain(size)
        }
    }

    #[test]
    fn flips_turn_columns_around_as_often_as_asked() {
        let image = pattern(10, 10);
        let bytes: Vec<f32> = image.as_raw().iter().map(|&value| f32::from(value)).collect();
        let stay = interleaved(&still(10).init().unwrap().train(&image, 0));
        assert!(worst(&stay, &bytes) < 1e-3);
        let flipped = TransformConfig { flip: 1.0, ..still(10) }
            .init()
            .unwrap()
            .train(&image, 0);
        let expected: Vec<f32> = image::imageops::flip_horizontal(&image)
            .into_raw()
            .into_iter()
            .map(f32::from)
            .collect();
        assert!(worst(&interleaved(&flipped), &expected) < 1e-3);
        let sometimes = TransformConfig {
            flip: 0.25,
            ..still(10)
        }
        .init()
        .unwrap();
        let count = (0..2000).filter(|&seed| sometimes.view(10, 10, seed).flip).count();
        assert!((430..570).contains(&count), "{count}");
    }

    #[test]
    fn switching_one_augmentation_on_leaves_the_others_where_they_were() {
        let base = TransformConfig {
            brightness: 0.3,
            ..plain(32)
        };
        let more = TransformConfig {
            random_erasing: 1.0,
            saturation: 0.3,
            hue: 0.2,
            ..base.clone()
        };
        let (base, more) = (base.init().unwrap(), more.init().unwrap());
        for seed in 0..30 {
            let (a, b) = (base.view(90, 70, seed), more.view(90, 70, seed));
            assert_eq!((a.crop, a.flip), (b.crop, b.flip));
            assert!(b.colours.contains(&a.colours[0]) && b.colours.len() == 3);
        }
    }

    #[test]
    fn erasing_fills_a_rectangle_with_the_mean_colour() {
        let image = RgbImage::from_pixel(40, 40, image::Rgb([255; 3]));
        let transform = TransformConfig {
            random_erasing: 1.0,
            ..plain(40)
        }
        .init()
        .unwrap();
        for seed in 0..50 {
            let view = transform.train(&image, seed);
            let share = view.iter().filter(|&&value| value == 0.0).count() as f64 / view.len() as f64;
            assert!((0.015..0.36).contains(&share), "{share}");
            let kept = TransformConfig {
                random_erasing: 0.0,
                ..plain(40)
            }
            .init()
            .unwrap()
            .train(&image, seed);
            assert!(kept.iter().all(|&value| value > 254.0));
        }
    }

    #[test]
    fn level_zero_is_the_training_view() {
        let config = TransformConfig {
            contrast: 0.4,
            random_erasing: 0.5,
            ..TransformConfig::default()
        };
        let transform = TransformConfig { size: 24, ..config }.init().unwrap();
        for seed in 0..10 {
            let image = pattern(60, 45);
            assert_eq!(transform.graded(&image, 0, seed), transform.train(&image, seed));
        }
    }

    /// Blurred noise: like photographs, near pixels are alike, so that a change seen is larger the larger it is.
    fn smooth(seed: u64) -> RgbImage {
        let mut random = stream(seed, &[99]);
        let coarse = RgbImage::from_fn(9, 9, |_, _| image::Rgb(std::array::from_fn(|_| random.random())));
        image::imageops::resize(&coarse, 120, 120, image::imageops::FilterType::CatmullRom)
    }

    #[test]
    fn graded_views_move_away_from_the_training_view_level_by_level() {
        let transform = TransformConfig {
            crop_scale: [0.4, 1.0],
            ..plain(32)
        }
        .init()
        .unwrap();
        let mut mean = [0.0; 6];
        let (mut ordered, mut pairs) = (0, 0);
        for seed in 0..60 {
            let image = smooth(seed);
            let anchor = transform.train(&image, seed);
            let away: Vec<f64> = (0..6)
                .map(|level| distance(&transform.graded(&image, level, seed), &anchor))
                .collect();
            for level in 1..6 {
                mean[level] += away[level] / 60.0;
                pairs += 1;
                ordered += usize::from(away[level] > away[level - 1]);
            }
        }
        assert!((1..6).all(|level| mean[level] > mean[level - 1] * 1.03), "{mean:?}");
        assert!(
            f64::from(ordered as u32) > 0.8 * f64::from(pairs),
            "{ordered} of {pairs}: {mean:?}"
        );
    }

    #[test]
    fn weak_graded_views_approach_the_training_view() {
        // The path to the levels is continuous: at a strength near 0 warping shows what resizing the crop shows.
        let transform = plain(32).init().unwrap();
        for seed in 0..10 {
            let image = smooth(seed);
            let crop = transform.view(120, 120, seed).crop;
            let warped = transform.warp(&image, Path::draw(seed).corners(crop, 1e-6, 0.0));
            let resized: Vec<f32> = transform.resize_crop(&image, crop, |pixels| {
                pixels.iter().map(|&value| f32::from(value)).collect()
            });
            assert!(distance(&warped, &resized) < 2.0, "{}", distance(&warped, &resized));
        }
    }

    #[test]
    fn strengths_are_those_of_the_method() {
        let expected = [0.0, 0.197_375, 0.379_949, 0.537_050, 0.664_037, 0.761_594];
        assert!((0..6).all(|level| (strength(level) - expected[level]).abs() < 1e-6));
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        let message = |config: TransformConfig| config.init().unwrap_err().to_string();
        let base = TransformConfig::default;
        assert!(message(TransformConfig { size: 0, ..base() }).contains("size must be between 1 and"));
        let found = message(TransformConfig {
            resize: Resize::Pixels(100),
            ..base()
        });
        assert!(
            found.contains("resize must be") && found.contains("224") && found.contains("but is 100"),
            "{found}"
        );
        assert!(
            message(TransformConfig {
                crop_scale: [0.5, 0.2],
                ..base()
            })
            .contains("crop-scale")
        );
        assert!(
            message(TransformConfig {
                crop_scale: [0.0, 1.0],
                ..base()
            })
            .contains("crop-scale")
        );
        assert!(
            message(TransformConfig {
                crop_ratio: [1.0, f64::NAN],
                ..base()
            })
            .contains("crop-ratio")
        );
        assert!(message(TransformConfig { flip: 1.5, ..base() }).contains("flip must be between 0 and 1, but is 1.5"));
        assert!(message(TransformConfig { hue: 0.7, ..base() }).contains("hue"));
        assert!(
            message(TransformConfig {
                contrast: f64::INFINITY,
                ..base()
            })
            .contains("contrast")
        );
        assert!(
            message(TransformConfig {
                std: [1.0, 0.0, 1.0],
                ..base()
            })
            .contains("std")
        );
        assert!(base().init().is_ok());
        assert_eq!(
            (
                base().resize_pixels(),
                TransformConfig { size: 96, ..base() }.resize_pixels()
            ),
            (256, 96)
        );
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let config: TransformConfig = serde_json::from_str(
            r#"{"size": 96, "resize": 110, "crop-scale": [0.2, 1.0], "interpolation": "bicubic"}"#,
        )
        .unwrap();
        assert_eq!(
            (config.resize, config.interpolation),
            (Resize::Pixels(110), Interpolation::Bicubic)
        );
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TransformConfig>(&written).unwrap(), config);
        assert!(
            serde_json::to_string(&TransformConfig::default())
                .unwrap()
                .contains(r#""resize":"auto""#)
        );
        for wrong in [r#"{"resize": "big"}"#, r#"{"resize": -3}"#, r#"{"reisze": 3}"#] {
            assert!(serde_json::from_str::<TransformConfig>(wrong).is_err(), "{wrong}");
        }
    }
}
