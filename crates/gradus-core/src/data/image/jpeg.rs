//! JPEG → RGB with one reading of the headers.
//!
//! The general decoder of `image` reads a JPEG's headers three times (size, orientation, pixels) and copies its bytes;
//! on small photographs that is a sixth of the time. This is the same decoder, `zune-jpeg`, without the detour: the
//! pixels are the same.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Whether these bytes are a JPEG's.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

/// Whether a JPEG's end marker follows its first scan. (A thumbnail inside the metadata has an end marker of its own,
/// hence the walk over the segments; inside a scan a byte 0xff is always followed by 0 or a restart marker.)
pub(super) fn has_end(bytes: &[u8]) -> bool {
    let mut position = 2;
    loop {
        // Anything between segments is skipped up to the next marker, as decoders do.
        match bytes
            .get(position..)
            .and_then(|rest| rest.iter().position(|&byte| byte == 0xff))
        {
            Some(offset) => position += offset + 1,
            None => return false,
        }
        let Some(&marker) = bytes.get(position) else {
            return false;
        };
        match marker {
            0xff | 0x00 | 0x01 | 0xd0..=0xd8 => {}
            0xd9 => return true,
            0xda => break,
            _ => match bytes.get(position + 1..position + 3) {
                Some(length) => position += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
                None => return false,
            },
        }
    }
    // From behind: that is where it stands in a whole file.
    bytes[position..].windows(2).rev().any(|pair| pair == [0xff, 0xd9])
}

/// Decodes a JPEG whose size `check` accepts; `None` for the rare colour spaces that are left to the general decoder.
///
/// # Errors
/// Those of `check`, and what the decoder says, in the words of `broken`.
pub(super) fn decode<E>(
    bytes: &[u8],
    check: impl FnOnce(u32, u32) -> Result<(), E>,
    broken: impl Fn(String) -> E,
) -> Result<Option<RgbImage>, E> {
    let failed = |error| broken(format!("cannot be decoded: {error}"));
    // Lenient like the general decoder, and without limits of its own: the size is checked below.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(failed)?;
    let known = [
        ColorSpace::Luma,
        ColorSpace::YCbCr,
        ColorSpace::RGB,
        ColorSpace::CMYK,
        ColorSpace::YCCK,
    ];
    let (Some((width, height)), Some(space)) = (decoder.dimensions(), decoder.input_colorspace()) else {
        return Ok(None);
    };
    let (Ok(columns), Ok(rows)) = (u32::try_from(width), u32::try_from(height)) else {
        return Ok(None);
    };
    if !known.contains(&space) {
        return Ok(None);
    }
    check(columns, rows)?;
    let mut pixels = vec![0; 3 * width * height];
    decoder.decode_into(&mut pixels).map_err(failed)?;
    // Damaged metadata is no reason to refuse good pixels.
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let Some(upright) = RgbImage::from_raw(columns, rows, pixels) else {
        return Ok(None);
    };
    let mut image = DynamicImage::ImageRgb8(upright);
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(Some(image.into_rgb8()))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat};

    use super::*;

    fn both(bytes: &[u8]) -> (RgbImage, RgbImage) {
        let own = decode(bytes, |_, _| Ok::<(), String>(()), |problem| problem).unwrap();
        let general = image::load_from_memory_with_format(bytes, ImageFormat::Jpeg).unwrap();
        (own.expect("a usual colour space"), general.into_rgb8())
    }

    fn encode(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn the_pixels_are_those_of_the_general_decoder() {
        for (width, height) in [(1, 1), (7, 5), (16, 16), (33, 100), (250, 131)] {
            let picture = RgbImage::from_fn(width, height, |x, y| {
                image::Rgb([x * 7 + y, x * y, 255 - y * 3].map(|value| (value % 256) as u8))
            });
            for image in [
                DynamicImage::ImageRgb8(picture.clone()),
                DynamicImage::ImageLuma8(DynamicImage::ImageRgb8(picture).into_luma8()),
            ] {
                let (own, general) = both(&encode(&image));
                assert!(own == general, "{width} x {height} {:?}", image.color());
            }
        }
        // Made by tools/golden/make_images.py: CMYK, and the ways in which photographs are stored.
        for bytes in [
            include_bytes!("../../../tests/images/cmyk.jpg").as_slice(),
            include_bytes!("../../../tests/images/progressive_420.jpg"),
            include_bytes!("../../../tests/images/baseline_422.jpg"),
            include_bytes!("../../../tests/images/baseline_444_restart.jpg"),
        ] {
            let (own, general) = both(bytes);
            assert!(own == general);
        }
    }

    #[test]
    fn the_end_marker_of_a_thumbnail_does_not_count() {
        let jpeg = encode(&DynamicImage::ImageRgb8(RgbImage::new(32, 32)));
        let thumbnail = [0xff, 0xe1, 0, 8, 1, 2, 0xff, 0xd9, 3, 4];
        let whole = [&jpeg[..2], &thumbnail, &jpeg[2..]].concat();
        assert!(has_end(&whole));
        assert!(!has_end(&whole[..whole.len() - 2]));
    }

    #[test]
    fn a_refused_size_is_not_decoded() {
        let jpeg = encode(&DynamicImage::ImageRgb8(RgbImage::new(32, 8)));
        let refuse = |width, height| Err(format!("{width} x {height}"));
        assert_eq!(decode(&jpeg, refuse, |problem| problem), Err("32 x 8".to_owned()));
    }
}
