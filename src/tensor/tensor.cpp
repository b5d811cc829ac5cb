#include "sgm/tensor/tensor.h"

#include "kernels/elementwise.h"
#include "kernels/fill.h"

namespace sgm {

struct Tensor::Storage {
  Context& context;
  std::size_t bytes;
  void* data;
  std::uint64_t version;
  Tensor low;                     // bf16 copy
  double low_factor = 1.0;        // of the copy
  std::uint64_t low_version = 0;  // of the values that `low` copies

  Storage(Context& c, std::size_t b) : context(c), bytes(b), data(c.allocate(b)), version(c.next_stamp()) {}
  ~Storage() { context.release(data, bytes); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
};

Tensor Tensor::empty(Context& context, Shape shape, DType dtype) {
  check(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64,
        "tensor: element type must be f32, bf16 or f64, got ", dtype);
  check(shape.rank() <= Shape::kMaxRank, "tensor: rank ", shape.rank(), " is above ", Shape::kMaxRank);
  constexpr std::int64_t kMostElements = std::int64_t{1} << 48;
  std::int64_t elements = 1;
  for (const std::int64_t size : shape) {
    check(size >= 0 && (size == 0 || elements <= kMostElements / size), "tensor: impossible shape ", shape);
    elements *= size;
  }
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.storage_ = std::make_shared<Storage>(context, tensor.bytes());
  return tensor;
}

Tensor Tensor::zeros(Context& context, Shape shape, DType dtype) { return full(context, shape, 0.0, dtype); }

Tensor Tensor::full(Context& context, Shape shape, double value, DType dtype) {
  Tensor tensor = empty(context, shape, dtype);
  tensor.fill(value);
  return tensor;
}

namespace {

template <class T>
Tensor uploaded(Context& context, std::span<const T> values, Shape shape, DType dtype) {
  check(static_cast<std::int64_t>(values.size()) == shape.numel(), "tensor: ", values.size(),
        " values do not fill shape ", shape);
  Tensor tensor = Tensor::empty(context, shape, dtype_of<T>());
  context.copy_from_host(tensor.data<T>(), values.data(), tensor.bytes());
  return tensor.to(dtype);
}

template <class T>
std::vector<T> download(const Tensor& tensor) {
  const Tensor source = tensor.to(dtype_of<T>());
  std::vector<T> values(static_cast<std::size_t>(source.numel()));
  source.context().copy_to_host(values.data(), source.data<T>(), source.bytes());
  return values;
}

}  // namespace

Tensor Tensor::from_bytes(Context& context, std::span<const std::byte> bytes) {
  const auto size = static_cast<std::int64_t>((bytes.size() + sizeof(double) - 1) / sizeof(double));
  Tensor tensor = empty(context, {size}, DType::f64);
  context.copy_from_host(tensor.raw(), bytes.data(), bytes.size());
  return tensor;
}

namespace {

template <class T>
void overwrite(Tensor& tensor, std::span<const T> values) {
  check(static_cast<std::int64_t>(values.size()) == tensor.numel(), "upload: ", values.size(),
        " values for shape ", tensor.shape());
  tensor.context().copy_from_host(tensor.data<T>(), values.data(), values.size_bytes());
  tensor.mark_modified();
}

}  // namespace

void Tensor::upload(std::span<const float> values) { overwrite(*this, values); }
void Tensor::upload(std::span<const double> values) { overwrite(*this, values); }

Tensor Tensor::from_host(Context& context, std::span<const float> values, Shape shape, DType dtype) {
  return uploaded(context, values, shape, dtype);
}

Tensor Tensor::from_host(Context& context, std::span<const double> values, Shape shape, DType dtype) {
  return uploaded(context, values, shape, dtype);
}

Context& Tensor::context() const {
  check(defined(), "tensor: absent tensor used");
  return storage_->context;
}

Tensor Tensor::reshape(Shape shape) const {
  check(shape.numel() == numel(), "reshape: ", shape_, " has not the element count of ", shape);
  Tensor result = *this;
  result.shape_ = shape;
  return result;
}

Tensor Tensor::clone() const {
  Tensor result = empty(context(), shape_, dtype_);
  run(Cast{buffer(), result.buffer(), numel()}, context());
  return result;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor result = empty(context(), shape_, dtype);
  run(Cast{buffer(), result.buffer(), numel()}, context());
  return result;
}

void Tensor::copy_from(const Tensor& source) {
  check(source.shape() == shape_, "copy_from: shape ", source.shape(), " into ", shape_);
  run(Cast{source.buffer(), buffer(), numel()}, context());
  mark_modified();
}

void Tensor::fill(double value) {
  run(Fill{buffer(), numel(), value}, context());
  mark_modified();
}

void Tensor::add(const Tensor& other) {
  check(other.shape_ == shape_ && other.dtype_ == dtype_, "add: ", other.dtype_, ' ', other.shape_, " to ",
        dtype_, ' ', shape_);
  run(AddScaled{buffer(), other.buffer(), buffer(), numel(), 1.0, 1.0}, context());
  mark_modified();
}

std::vector<float> Tensor::to_host() const { return download<float>(*this); }
std::vector<double> Tensor::to_host_f64() const { return download<double>(*this); }

double Tensor::item() const {
  check(numel() == 1, "item: tensor of shape ", shape_, " has more than one element");
  return to_host_f64()[0];
}

void* Tensor::raw() const {
  check(defined(), "tensor: absent tensor used");
  return storage_->data;
}

Buffer Tensor::buffer() { return defined() ? Buffer{raw(), dtype_} : Buffer{}; }
ConstBuffer Tensor::buffer() const { return defined() ? ConstBuffer{raw(), dtype_} : ConstBuffer{}; }

std::uint64_t Tensor::version() const { return storage_ ? storage_->version : 0; }

void Tensor::mark_modified(bool low_too) {
  storage_->version = context().next_stamp();
  if (low_too) storage_->low_version = storage_->version;
}

Tensor Tensor::low(double factor) const {
  check(dtype_ == DType::f32, "low: a bf16 copy of ", dtype_, " values");
  Storage& storage = *storage_;
  if (!storage.low.defined()) {
    const LastingMemory lasting(context());
    storage.low = empty(context(), shape_, DType::bf16);
  }
  if (storage.low_version != storage.version || storage.low_factor != factor) {
    run(Cast{buffer(), storage.low.buffer(), numel(), factor}, context());
    storage.low_version = storage.version;
    storage.low_factor = factor;
  }
  return storage.low;
}

Buffer Tensor::low_buffer() { return storage_->low.buffer(); }
double Tensor::low_factor() const { return storage_->low_factor; }

}  // namespace sgm
