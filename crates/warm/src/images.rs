//! Arrays in physical types, and the images of their values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::kernels::aggregate;

use crate::spec::Form;
use crate::value::{f32_image, f32_of_image, f64_image, f64_of_image, u64_image, u64_of_image};

/// A number that has an image.
pub(crate) trait Imaged: Copy {
    /// Its image.
    fn image(self) -> i64;
    /// The number with this image.
    fn of_image(image: i64) -> Self;
}

macro_rules! imaged {
    ($($native:ty),*) => {$(
        impl Imaged for $native {
            fn image(self) -> i64 {
                i64::from(self)
            }

            fn of_image(image: i64) -> Self {
                Self::try_from(image).unwrap_or_default()
            }
        }
    )*};
    ($native:ty; $image:path, $of_image:path) => {
        impl Imaged for $native {
            fn image(self) -> i64 {
                $image(self)
            }

            fn of_image(image: i64) -> Self {
                $of_image(image)
            }
        }
    };
}

imaged!(i8, i16, i32, i64, u8, u16, u32);
imaged!(u64; u64_image, u64_of_image);
imaged!(f32; f32_image, f32_of_image);
imaged!(f64; f64_image, f64_of_image);

/// Runs `$body` with `$type` as the Arrow type of a form, or `$boolean` for booleans.
macro_rules! by_form {
    ($form:expr, |$type:ident| $body:expr, $boolean:expr) => {{
        use arrow::datatypes as types;
        macro_rules! case {
            ($arrow:ident) => {{
                type $type = types::$arrow;
                $body
            }};
        }
        match $form {
            $crate::spec::Form::Boolean => $boolean,
            $crate::spec::Form::Int8 => case!(Int8Type),
            $crate::spec::Form::Int16 => case!(Int16Type),
            $crate::spec::Form::Int32 => case!(Int32Type),
            $crate::spec::Form::Int64 => case!(Int64Type),
            $crate::spec::Form::UInt8 => case!(UInt8Type),
            $crate::spec::Form::UInt16 => case!(UInt16Type),
            $crate::spec::Form::UInt32 | $crate::spec::Form::Code => case!(UInt32Type),
            $crate::spec::Form::UInt64 => case!(UInt64Type),
            $crate::spec::Form::Float32 => case!(Float32Type),
            $crate::spec::Form::Float64 => case!(Float64Type),
        }
    }};
}
pub(crate) use by_form;

/// The image of a row's value, or none for a null.
///
/// The array is of the physical type of the form.
#[must_use]
pub fn image_at(form: Form, array: &ArrayRef, row: usize) -> Option<i64> {
    if array.is_null(row) {
        return None;
    }
    by_form!(
        form,
        |Type| Some(array.as_primitive::<Type>().value(row).image()),
        Some(i64::from(array.as_boolean().value(row)))
    )
}

/// Least and greatest image of an array's values, or none if there is no value.
///
/// The array is of the physical type of the form.
#[must_use]
pub fn image_ends(form: Form, array: &ArrayRef) -> Option<(i64, i64)> {
    by_form!(form, |Type| ends_of(array.as_primitive::<Type>()), {
        let array = array.as_boolean();
        let least = aggregate::min_boolean(array)?;
        Some((i64::from(least), i64::from(aggregate::max_boolean(array)?)))
    })
}

/// How many values are looked at side by side.
const LANES: usize = 8;

/// Both ends in one pass.
fn ends_of<T: ArrowPrimitiveType<Native: Imaged>>(array: &PrimitiveArray<T>) -> Option<(i64, i64)> {
    if array.null_count() == array.len() {
        return None;
    }
    let mut ends = (i64::MAX, i64::MIN);
    let mut add = |values: &[T::Native]| {
        let (least, greatest) = ends_of_values(values);
        ends = (ends.0.min(least), ends.1.max(greatest));
    };
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => add(array.values()),
        Some(nulls) => {
            nulls.valid_slices().for_each(|(start, end)| add(&array.values()[start..end]));
        }
    }
    Some(ends)
}

fn ends_of_values<N: Imaged>(values: &[N]) -> (i64, i64) {
    let (mut least, mut greatest) = ([i64::MAX; LANES], [i64::MIN; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let image = chunk[lane].image();
            least[lane] = least[lane].min(image);
            greatest[lane] = greatest[lane].max(image);
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        let image = value.image();
        least[lane] = least[lane].min(image);
        greatest[lane] = greatest[lane].max(image);
    }
    let least = least.into_iter().fold(i64::MAX, i64::min);
    (least, greatest.into_iter().fold(i64::MIN, i64::max))
}

/// The array, of the physical type of the form, of values that have these images.
#[must_use]
pub fn array_of_images(form: Form, images: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let images = images.into_iter();
    by_form!(
        form,
        |Type| {
            let values = images.map(|image| image.map(Imaged::of_image));
            Arc::new(values.collect::<PrimitiveArray<Type>>())
        },
        Arc::new(images.map(|image| image.map(|image| image != 0)).collect::<BooleanArray>())
    )
}
