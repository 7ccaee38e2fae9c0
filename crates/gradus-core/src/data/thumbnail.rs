//! Small pictures for pages.

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};

use super::dataset::Source;
use super::image::{DEFAULT_PIXEL_LIMIT, ImageError, decode_within};

/// Quality of the JPEG, of 100: what is lost shows only beside the original.
const QUALITY: u8 = 82;

/// An image as a JPEG file whose longer side has `side` pixels (never more than it had).
///
/// # Errors
/// As [`decode`](super::image::decode).
pub fn thumbnail(source: &Source, side: u32) -> Result<Vec<u8>, ImageError> {
    let pixels = decode_within(source, DEFAULT_PIXEL_LIMIT)?;
    let (width, height) = pixels.dimensions();
    let longer = width.max(height);
    let to = |pixels: &RgbImage, longest: u32, filter: FilterType| {
        let scaled = |length: u32| (u64::from(length) * u64::from(longest) / u64::from(longer)).max(1) as u32;
        resize(pixels, scaled(width), scaled(height), filter)
    };
    // Far larger pictures are first thinned out: exactness is not worth the time for a thumbnail.
    let thinned = (longer > 8 * side).then(|| to(&pixels, 4 * side, FilterType::Nearest));
    let pixels: &RgbImage = thinned.as_ref().unwrap_or(&pixels);
    let small = (longer > side).then(|| to(pixels, side, FilterType::Triangle));
    let small = small.as_ref().unwrap_or(pixels);
    let mut bytes = Vec::new();
    let encoded = JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(small);
    encoded.map_err(|error| ImageError::Broken {
        name: source.name(),
        problem: error.to_string(),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn sides_shrink_alike_and_small_pictures_stay() {
        for (width, height, expected) in [
            (200, 100, (64, 32)),
            (30, 20, (30, 20)),
            (3000, 10, (64, 1)),
            (1, 1, (1, 1)),
        ] {
            let source = Source::Drawn {
                name: "drawn".into(),
                pixels: Arc::new(RgbImage::from_pixel(width, height, image::Rgb([200, 10, 30]))),
            };
            let bytes = thumbnail(&source, 64).unwrap();
            let decoded = image::load_from_memory(&bytes).unwrap().to_rgb8();
            assert_eq!(decoded.dimensions(), expected);
            assert!(decoded.pixels().all(|pixel| pixel.0[0] > 150 && pixel.0[1] < 60));
        }
        assert!(thumbnail(&Source::File("missing.jpg".into()), 64).is_err());
    }
}
