//! The only unsafe code of the project: ONNX Runtime's calls that `ort` lacks, or has only for one thread.
//!
//! `ort::Session::run` takes `&mut self`. A mutex around it halves the throughput of two threads, and a session a
//! thread costs a copy of the weights each; so `SharedSession` calls `OrtApi::Run` itself. `BoundSession` is for GPUs:
//! one thread's, with inputs and outputs bound. Why that is sound:
//!
//! 1. *Concurrency.* ONNX Runtime documents `Run` as safe to call from several threads on one session, and its CPU
//!    provider keeps per-run state in the call's own execution frame (onnxruntime#114). That does not hold for every
//!    provider, so `ort.rs` shares a session between threads only when it runs on the CPU alone; a `BoundSession` runs
//!    with `&mut self`.
//!    `RunOptions` are one thread's as well; another thread sets no more than their flag to terminate, which is what
//!    ONNX Runtime has it for, and which its executors read before each operator.
//! 2. *Lifetimes.* Pointers to inputs, names and shapes are used during one call only, while `&self` and `inputs` keep
//!    them alive; a binding is cleared before the call ends. `Value` releases each `OrtValue` exactly once. An output's memory is owned by its `OrtValue`, kept in
//!    `OutputBuffer` together with the session; an output that *is* an input (a graph may pass one through) points into
//!    a request's memory, and is copied.
//! 3. *Validity.* A `Tensor` has proven its length against its shape and type, and inputs are aligned here. Lengths of
//!    outputs come from ONNX Runtime, and are checked again by `Tensor::new`. Inputs are only read: ONNX Runtime takes
//!    `void*` for them, but never reuses the buffer of a graph input.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use bytes::Bytes;
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{RunOptions, Session};
use ort::sys;

use super::assignment::Node;
use crate::protocol::{Datatype, Tensor, bytes_elements};

/// A session whose `run` takes `&self`. More than one thread at a time: only with the CPU provider (see above).
pub(super) struct SharedSession {
    session: Session,
    memory: MemoryInfo<'static>,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    output_types: Vec<Datatype>,
}

/// Declared here so that a compiler says so when `ort` changes its mind.
const fn assert_shareable<T: Send + Sync>() {}
const _: () = assert_shareable::<SharedSession>();

impl SharedSession {
    /// `outputs`: the outputs that can be asked for, in the order of the indices given to `run`.
    pub fn new(
        session: Session,
        inputs: &[String],
        outputs: &[(String, Datatype)],
    ) -> Result<Arc<Self>, String> {
        let c_string =
            |name: &String| CString::new(name.as_str()).map_err(|_| format!("{name:?} holds a NUL"));
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
            .map_err(text)?;
        Ok(Arc::new(Self {
            session,
            memory,
            input_names: inputs.iter().map(c_string).collect::<Result<_, _>>()?,
            output_names: outputs.iter().map(|(name, _)| c_string(name)).collect::<Result<_, _>>()?,
            output_types: outputs.iter().map(|(_, datatype)| *datatype).collect(),
        }))
    }

    /// `inputs`: one an input name, in order, of the model's types.
    pub fn run(
        self: &Arc<Self>,
        inputs: &[Tensor],
        outputs: &[usize],
        options: &RunOptions,
    ) -> Result<Vec<Tensor>, String> {
        let Feed { values, buffers } = self.feed(inputs)?;
        let value_ptrs: Vec<*const sys::OrtValue> =
            values.iter().map(|v| v.0.as_ptr().cast_const()).collect();
        let input_names: Vec<*const c_char> = self.input_names.iter().map(|n| n.as_ptr()).collect();
        let output_names: Vec<*const c_char> =
            outputs.iter().map(|i| self.output_names[*i].as_ptr()).collect();
        let mut results: Vec<*mut sys::OrtValue> = vec![ptr::null_mut(); outputs.len()];

        // SAFETY: session and options are alive; names and values are as many as said, and alive; `results` has room
        // for every output; concurrent calls: argument 1 of the module.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                options.ptr(),
                input_names.as_ptr(),
                value_ptrs.as_ptr(),
                value_ptrs.len(),
                output_names.as_ptr(),
                output_names.len(),
                results.as_mut_ptr(),
            )
        };
        // Owned first, so that nothing leaks when the status is an error.
        let results: Vec<Option<Value>> = results.into_iter().map(|p| NonNull::new(p).map(Value)).collect();
        check(status)?;
        outputs.iter().zip(results).map(|(index, value)| self.read_output(*index, value, &buffers)).collect()
    }

    /// The nodes of the graph, each with its provider, as ONNX Runtime assigned them after its basic optimisations. The
    /// session was made with `session.record_ep_graph_assignment_info`.
    pub fn nodes(&self) -> Result<Vec<Node>, String> {
        let api = ort::api();
        let (mut subgraphs, mut count) = (ptr::null(), 0);
        let mut nodes = Vec::new();
        // SAFETY: what is pointed to belongs to the session, which is alive; all of it is copied here.
        unsafe {
            check((api.Session_GetEpGraphAssignmentInfo)(self.session.ptr(), &mut subgraphs, &mut count))?;
            for subgraph in slice(subgraphs, count) {
                let (mut members, mut count) = (ptr::null(), 0);
                let provider = string(|out| (api.EpAssignedSubgraph_GetEpName)(*subgraph, out))?;
                check((api.EpAssignedSubgraph_GetNodes)(*subgraph, &mut members, &mut count))?;
                for node in slice(members, count) {
                    nodes.push(Node {
                        provider: provider.clone(),
                        domain: string(|out| (api.EpAssignedNode_GetDomain)(*node, out))?,
                        operator: string(|out| (api.EpAssignedNode_GetOperatorType)(*node, out))?,
                    });
                }
            }
        }
        Ok(nodes)
    }

    /// Ends the profile that the session was made with; its file.
    pub fn end_profiling(&self) -> Result<String, String> {
        let mut allocator = Allocator::default();
        let mut name = ptr::null_mut();
        // SAFETY: the session is alive, and locks its profiler; the name is the allocator's, copied, and freed once.
        unsafe {
            check((ort::api().SessionEndProfiling)(
                self.session.ptr().cast_mut(),
                allocator.ptr_mut(),
                &mut name,
            ))?;
            if name.is_null() {
                return Err("the profile has no name".into());
            }
            let text = CStr::from_ptr(name).to_string_lossy().into_owned();
            check((ort::api().AllocatorFree)(allocator.ptr_mut(), name.cast::<c_void>()))?;
            Ok(text)
        }
    }

    fn feed<'a>(&self, inputs: &'a [Tensor]) -> Result<Feed<'a>, String> {
        if inputs.len() != self.input_names.len() {
            return Err(format!("{} inputs for {} names", inputs.len(), self.input_names.len()));
        }
        let buffers: Vec<Aligned<'_>> = inputs.iter().map(Aligned::new).collect();
        let values = inputs
            .iter()
            .zip(&buffers)
            .map(|(tensor, buffer)| self.build_input(tensor, buffer.bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Feed { values, buffers })
    }

    fn build_input(&self, tensor: &Tensor, buffer: &[u8]) -> Result<Value, String> {
        let shape = &tensor.shape;
        let mut value = ptr::null_mut();
        if tensor.datatype != Datatype::Bytes {
            // SAFETY: `buffer` is aligned, has the length that shape and type ask for (`Tensor::new`), and outlives the
            // value; ONNX Runtime only reads it (argument 3).
            check(unsafe {
                (ort::api().CreateTensorWithDataAsOrtValue)(
                    self.memory.ptr(),
                    buffer.as_ptr().cast_mut().cast::<c_void>(),
                    buffer.len(),
                    shape.as_ptr(),
                    shape.len(),
                    element_type(tensor.datatype),
                    &mut value,
                )
            })?;
            return NonNull::new(value).map(Value).ok_or_else(|| "no value was made".into());
        }
        let mut allocator = Allocator::default();
        // SAFETY: the default allocator lives as long as the process; the strings it makes are owned by the value.
        check(unsafe {
            (ort::api().CreateTensorAsOrtValue)(
                allocator.ptr_mut(),
                shape.as_ptr(),
                shape.len(),
                element_type(Datatype::Bytes),
                &mut value,
            )
        })?;
        let value = NonNull::new(value).map(Value).ok_or("no value was made")?;
        for (index, element) in bytes_elements(buffer).enumerate() {
            let mut target = ptr::null_mut();
            // SAFETY: `index` is below the element count (`Tensor::new` counted them).
            check(unsafe {
                (ort::api().GetResizedStringTensorElementBuffer)(
                    value.0.as_ptr(),
                    index,
                    element.len(),
                    &mut target,
                )
            })?;
            // SAFETY: ONNX Runtime has resized the string to `element.len()` bytes and given their start, and nothing
            // else knows this value yet.
            unsafe { ptr::copy_nonoverlapping(element.as_ptr(), target.cast::<u8>(), element.len()) }
        }
        Ok(value)
    }

    fn read_output(
        self: &Arc<Self>,
        index: usize,
        value: Option<Value>,
        inputs: &[Aligned<'_>],
    ) -> Result<Tensor, String> {
        let name = self.output_names[index].to_string_lossy().into_owned();
        let value = value.ok_or_else(|| format!("output {name:?} was not produced"))?;
        let datatype = self.output_types[index];
        let shape = shape(&value)?;
        let data = match datatype {
            Datatype::Bytes => strings(&value, shape.iter().product::<i64>() as usize)?,
            _ => self.numbers(value, inputs)?,
        };
        Tensor::new(name, datatype, shape, data).map_err(text)
    }

    /// The memory of a number tensor, without a copy.
    fn numbers(self: &Arc<Self>, value: Value, inputs: &[Aligned<'_>]) -> Result<Bytes, String> {
        let (mut length, mut data) = (0usize, ptr::null_mut());
        // SAFETY: `value` is a live tensor of numbers, since its graph output is declared as one.
        check(unsafe { (ort::api().GetTensorSizeInBytes)(value.0.as_ptr(), &mut length) })?;
        // SAFETY: as above.
        check(unsafe { (ort::api().GetTensorMutableData)(value.0.as_ptr(), &mut data) })?;
        let Some(data) = NonNull::new(data.cast::<u8>()).filter(|_| length > 0) else {
            return Ok(Bytes::new());
        };
        let buffer = OutputBuffer { data, length, _value: value, _session: self.clone() };
        let passed_through =
            inputs.iter().any(|i| i.bytes().as_ptr_range().contains(&data.as_ptr().cast_const()));
        Ok(match passed_through {
            true => Bytes::copy_from_slice(buffer.as_ref()),
            false => Bytes::from_owner(buffer),
        })
    }
}

/// A GPU's session, one thread's. Inputs go to the device once, when they are bound, and outputs come back once.
pub(super) struct BoundSession {
    binding: NonNull<sys::OrtIoBinding>,
    session: Arc<SharedSession>,
}

// SAFETY: a binding is not tied to the thread that made it, and `run` takes `&mut self`.
unsafe impl Send for BoundSession {}

impl Drop for BoundSession {
    fn drop(&mut self) {
        // SAFETY: made by ONNX Runtime, released once, before its session.
        unsafe { (ort::api().ReleaseIoBinding)(self.binding.as_ptr()) }
    }
}

impl BoundSession {
    pub fn new(session: Arc<SharedSession>) -> Result<Self, String> {
        let mut binding = ptr::null_mut();
        // SAFETY: the session is alive, and stays so as long as the binding.
        check(unsafe { (ort::api().CreateIoBinding)(session.session.ptr().cast_mut(), &mut binding) })?;
        let binding = NonNull::new(binding).ok_or("no binding was made")?;
        Ok(Self { binding, session })
    }

    /// As `SharedSession::run`.
    pub fn run(
        &mut self,
        inputs: &[Tensor],
        outputs: &[usize],
        options: &RunOptions,
    ) -> Result<Vec<Tensor>, String> {
        let feed = self.session.feed(inputs)?;
        let results = self.run_bound(&feed.values, outputs, options);
        // SAFETY: the binding is alive. Nothing of the request stays in it.
        unsafe {
            (ort::api().ClearBoundInputs)(self.binding.as_ptr());
            (ort::api().ClearBoundOutputs)(self.binding.as_ptr());
        }
        let results = outputs.iter().zip(results?);
        results.map(|(index, value)| self.session.read_output(*index, value, &feed.buffers)).collect()
    }

    fn run_bound(
        &mut self,
        values: &[Value],
        outputs: &[usize],
        options: &RunOptions,
    ) -> Result<Vec<Option<Value>>, String> {
        let (api, binding) = (ort::api(), self.binding.as_ptr());
        let SharedSession { session, memory, input_names, output_names, .. } = &*self.session;
        let mut allocator = Allocator::default();
        let (mut results, mut count) = (ptr::null_mut(), 0);
        // SAFETY: session, options, binding, names and values are alive. Copies to and from the device may go on after the calls
        // that began them: so both are waited for before memory is used. The array of results is the allocator's, and
        // each value in it is ours.
        unsafe {
            for (name, value) in input_names.iter().zip(values) {
                check((api.BindInput)(binding, name.as_ptr(), value.0.as_ptr()))?;
            }
            for index in outputs {
                check((api.BindOutputToDevice)(binding, output_names[*index].as_ptr(), memory.ptr()))?;
            }
            check((api.SynchronizeBoundInputs)(binding))?;
            check((api.RunWithBinding)(session.ptr().cast_mut(), options.ptr(), binding))?;
            check((api.SynchronizeBoundOutputs)(binding))?;
            check((api.GetBoundOutputValues)(binding, allocator.ptr_mut(), &mut results, &mut count))?;
            let values: Vec<Option<Value>> =
                slice(results, count).iter().map(|value| NonNull::new(*value).map(Value)).collect();
            if !results.is_null() {
                check((api.AllocatorFree)(allocator.ptr_mut(), results.cast::<c_void>()))?;
            }
            match values.len() == outputs.len() {
                true => Ok(values),
                false => Err(format!("{} outputs instead of {}", values.len(), outputs.len())),
            }
        }
    }
}

/// A request's inputs as ONNX Runtime's values, which point into `buffers`.
struct Feed<'a> {
    values: Vec<Value>,
    buffers: Vec<Aligned<'a>>,
}

/// Owns one `OrtValue`.
struct Value(NonNull<sys::OrtValue>);

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: made by ONNX Runtime, released once.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}

/// The memory of an output, for as long as the response needs it.
struct OutputBuffer {
    data: NonNull<u8>,
    length: usize,
    _value: Value,
    _session: Arc<SharedSession>,
}

// SAFETY: nobody writes to the memory once `Run` has returned, and ONNX Runtime's allocators may free from any thread.
unsafe impl Send for OutputBuffer {}
// SAFETY: as above; only shared reads are possible.
unsafe impl Sync for OutputBuffer {}

impl AsRef<[u8]> for OutputBuffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `length` bytes at `data` belong to the value, which lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.length) }
    }
}

fn shape(value: &Value) -> Result<Vec<i64>, String> {
    struct Info(*mut sys::OrtTensorTypeAndShapeInfo);
    impl Drop for Info {
        fn drop(&mut self) {
            // SAFETY: made by ONNX Runtime, released once.
            unsafe { (ort::api().ReleaseTensorTypeAndShapeInfo)(self.0) }
        }
    }
    let mut info = Info(ptr::null_mut());
    let mut rank = 0;
    // SAFETY: `value` is live; `info` is checked by the status before it is used; `shape` has room for `rank` numbers.
    unsafe {
        check((ort::api().GetTensorTypeAndShape)(value.0.as_ptr(), &mut info.0))?;
        check((ort::api().GetDimensionsCount)(info.0, &mut rank))?;
        let mut shape = vec![0i64; rank];
        check((ort::api().GetDimensions)(info.0, shape.as_mut_ptr(), rank))?;
        Ok(shape)
    }
}

/// The protocol's form of a string tensor of `count` elements.
fn strings(value: &Value, count: usize) -> Result<Bytes, String> {
    if count == 0 {
        return Ok(Bytes::new());
    }
    let mut total = 0;
    // SAFETY: `value` is a live string tensor.
    check(unsafe { (ort::api().GetStringTensorDataLength)(value.0.as_ptr(), &mut total) })?;
    let mut text = vec![0u8; total];
    let mut offsets = vec![0usize; count];
    // SAFETY: `text` and `offsets` have the lengths that are passed.
    check(unsafe {
        (ort::api().GetStringTensorContent)(
            value.0.as_ptr(),
            text.as_mut_ptr().cast::<c_void>(),
            total,
            offsets.as_mut_ptr(),
            count,
        )
    })?;
    let mut data = Vec::with_capacity(total + 4 * count);
    for (i, start) in offsets.iter().enumerate() {
        let end = offsets.get(i + 1).copied().unwrap_or(total);
        let element = text.get(*start..end).ok_or("a string lies outside of its tensor")?;
        let length = u32::try_from(element.len()).map_err(|_| "a string is larger than 4 GiB")?;
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(element);
    }
    Ok(data.into())
}

/// Data at an address that suits its type: a slice of a request body may start anywhere.
enum Aligned<'a> {
    Borrowed(&'a [u8]),
    Copied(Vec<u64>, usize),
}

impl<'a> Aligned<'a> {
    fn new(tensor: &'a Tensor) -> Self {
        let data: &[u8] = tensor.data();
        if data.as_ptr().addr().is_multiple_of(tensor.datatype.size().unwrap_or(1)) {
            return Aligned::Borrowed(data);
        }
        let mut copy = vec![0u64; data.len().div_ceil(8)];
        bytemuck::must_cast_slice_mut::<u64, u8>(&mut copy)[..data.len()].copy_from_slice(data);
        Aligned::Copied(copy, data.len())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Aligned::Borrowed(data) => data,
            Aligned::Copied(copy, length) => &bytemuck::must_cast_slice(copy)[..*length],
        }
    }
}

/// # Safety
/// `count` elements lie at `start`, for as long as the slice is used.
unsafe fn slice<'a, T>(start: *const T, count: usize) -> &'a [T] {
    if start.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, count) }
}

/// A copy of the string that `get` points to.
///
/// # Safety
/// `get` succeeds only with null or a string that is alive.
unsafe fn string(get: impl FnOnce(*mut *const c_char) -> sys::OrtStatusPtr) -> Result<String, String> {
    let mut start = ptr::null();
    check(get(&mut start))?;
    if start.is_null() {
        return Ok(String::new());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned())
}

fn check(status: sys::OrtStatusPtr) -> Result<(), String> {
    // SAFETY: every caller passes the status of an ONNX Runtime call, once.
    unsafe { ort::Error::result_from_status(status) }.map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn element_type(datatype: Datatype) -> sys::ONNXTensorElementDataType {
    use sys::ONNXTensorElementDataType as T;
    match datatype {
        Datatype::Bool => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        Datatype::Uint8 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Datatype::Uint16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Datatype::Uint32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Datatype::Uint64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Datatype::Int8 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Datatype::Int16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Datatype::Int32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Datatype::Int64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Datatype::Fp16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Datatype::Bf16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        Datatype::Fp32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Datatype::Fp64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Datatype::Bytes => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

#[cfg(test)]
mod tests;
