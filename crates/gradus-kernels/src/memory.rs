//! Buffers: outputs written in parts by several tasks, and scratch memory kept per thread.

use std::cell::RefCell;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

/// An output under construction: allocated but not zeroed, since every element is written exactly once.
pub(crate) struct Output {
    buffer: Vec<f32>,
    length: usize,
}

impl Output {
    pub(crate) fn new(length: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(length),
            length,
        }
    }

    /// Where the tasks write.
    pub(crate) fn pointer(&mut self) -> SharedPointer {
        SharedPointer(self.buffer.as_mut_ptr())
    }

    /// The finished buffer.
    ///
    /// # Safety
    /// All `length` elements must have been written.
    pub(crate) unsafe fn finish(mut self) -> Vec<f32> {
        // SAFETY: the capacity is at least `length`, and the caller has initialised that many elements.
        unsafe { self.buffer.set_len(self.length) };
        self.buffer
    }
}

/// A pointer that tasks share to write disjoint parts of one buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedPointer<T = f32>(*mut T);

// SAFETY: the pointer itself is plain data; each place that writes through it argues that its parts are disjoint.
unsafe impl<T: Send> Send for SharedPointer<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedPointer<T> {}

impl<T> SharedPointer<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// A pointer that whoever made it may write through.
    pub(crate) fn of(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// A pointer that is only read through.
    pub(crate) fn source(slice: &[T]) -> Self {
        Self(slice.as_ptr().cast_mut())
    }

    /// The address of element `index`.
    ///
    /// # Safety
    /// `index` must lie within the buffer or one past its end.
    pub(crate) unsafe fn at(self, index: usize) -> *mut T {
        // SAFETY: the caller keeps the index within the allocation.
        unsafe { self.0.add(index) }
    }
}

thread_local! {
    static POOL: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `length` floats of unspecified content, reused between calls on the same thread.
///
/// The buffer leaves the pool while it is in use, so that a task stolen by this thread in the middle of another gets
/// a buffer of its own.
pub(crate) fn with_scratch<R>(length: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    let result = work(&mut buffer[..length]);
    POOL.with_borrow_mut(|pool| pool.push(buffer));
    result
}

/// Floats of a cache line: large scratch starts on one, and its strides are kept off multiples of large powers of two.
pub(crate) const LINE: usize = 16;

/// The first float of the scratch that starts a cache line; ask for [`LINE`] floats more than are needed.
pub(crate) fn aligned(scratch: &mut [f32]) -> *mut f32 {
    let offset = scratch.as_ptr().align_offset(4 * LINE).min(LINE);
    scratch[offset..].as_mut_ptr()
}

/// A Flex tensor that owns these values in row-major order.
pub(crate) fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(Shape::from(shape.to_vec())),
        DType::F32,
    )
}

/// The values of a tensor that `to_contiguous` returned.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    let start = tensor.layout().start_offset();
    &tensor.storage::<f32>()[start..start + tensor.layout().num_elements()]
}

/// An element-wise operation that writes over its input where nobody else holds it, and to a new tensor elsewhere.
///
/// `work(source, target)` gets pointers to as many floats as the tensor has, which may be the same.
///
/// # Safety
/// `work` must write every element of the target, and must not read an element of the source after it has written the
/// same element of the target.
pub(crate) unsafe fn overwrite(input: FlexTensor, work: impl FnOnce(SharedPointer, SharedPointer)) -> FlexTensor {
    let mut contiguous = input.to_contiguous();
    drop(input);
    let length = contiguous.layout().num_elements();
    if contiguous.layout().start_offset() == 0
        && let Some(storage) = contiguous.try_storage_mut::<f32>()
        && storage.len() == length
    {
        let pointer = SharedPointer::new(storage);
        work(pointer, pointer);
        return contiguous;
    }
    let mut output = Output::new(length);
    work(SharedPointer::source(values(&contiguous)), output.pointer());
    // SAFETY: the caller promises that all elements are written.
    tensor(unsafe { output.finish() }, &contiguous.layout().shape().to_vec())
}

/// Asks the C library to keep large buffers for reuse instead of handing each back to the system.
///
/// A training step makes and drops hundreds of megabyte-sized tensors; mapping fresh zeroed pages for each costs a fifth of
/// the step. Does nothing where the allocator is another one.
pub fn keep_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const GIBIBYTE: i32 = 1 << 30;
        // SAFETY: `mallopt` only sets numbers of the allocator; it is documented to be callable at any time, and a value it does
        // not accept leaves the old one.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, GIBIBYTE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, GIBIBYTE);
            libc::mallopt(libc::M_TOP_PAD, GIBIBYTE / 8);
        }
    }
}
