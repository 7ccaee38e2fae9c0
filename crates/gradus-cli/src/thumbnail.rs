//! Small pictures inside a page.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gradus_core::data::Source;
use gradus_core::data::image::decode;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};

use crate::failure::Failure;

/// Quality of the JPEG files, 1 to 100.
const QUALITY: u8 = 82;

/// A picture with no side longer than `side` pixels, as a `data:` address of a JPEG file.
pub(crate) fn data_url(source: &Source, side: u32) -> Result<String, Failure> {
    let image = decode(source)?;
    let longest = image.width().max(image.height());
    let small = if longest > side {
        let scale = |length: u32| (u64::from(length) * u64::from(side) / u64::from(longest)).max(1) as u32;
        resize(
            &image,
            scale(image.width()),
            scale(image.height()),
            FilterType::Triangle,
        )
    } else {
        image
    };
    let mut bytes = Cursor::new(Vec::new());
    small.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY))?;
    Ok(format!(
        "data:image/jpeg;base64,{}",
        STANDARD.encode(bytes.into_inner())
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn pictures_are_scaled_to_their_longest_side() {
        let pixels = Arc::new(image::RgbImage::from_pixel(300, 30, image::Rgb([200, 10, 10])));
        let source = Source::Drawn {
            name: "red".into(),
            pixels,
        };
        let url = data_url(&source, 60).unwrap();
        let bytes = STANDARD
            .decode(url.strip_prefix("data:image/jpeg;base64,").unwrap())
            .unwrap();
        let small = image::load_from_memory(&bytes).unwrap();
        assert_eq!((small.width(), small.height()), (60, 6));
    }
}
