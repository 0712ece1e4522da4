// kernel0 grid 8 block 256 shared 0 arguments 2 writes 0
__device__ __forceinline__ void body(float* __restrict__ p0, const float* __restrict__ p1) {
  const int v0 = blockIdx.x;
  const int v1 = (int)(v0 * 1024);
  const int v2 = threadIdx.x;
  const int v3 = (int)(v2 * 4);
  const int v4 = (int)(v1 + v3);
  const Vec<float, 4> v5 = load<4, 4>(p1 + v4);
  const Vec<float, 4> v6 = {{(float)(fma(v5.v[0], 2.0f, 1.0f)), (float)(fma(v5.v[1], 2.0f, 1.0f)), (float)(fma(v5.v[2], 2.0f, 1.0f)), (float)(fma(v5.v[3], 2.0f, 1.0f))}};
  const Vec<bool, 4> v7 = {{(bool)(v6.v[0] < 0.0f), (bool)(v6.v[1] < 0.0f), (bool)(v6.v[2] < 0.0f), (bool)(v6.v[3] < 0.0f)}};
  const Vec<bool, 4> v8 = {{(bool)(v6.v[0] != 0.0f), (bool)(v6.v[1] != 0.0f), (bool)(v6.v[2] != 0.0f), (bool)(v6.v[3] != 0.0f)}};
  const Vec<bool, 4> v9 = {{(bool)(v8.v[0] != true), (bool)(v8.v[1] != true), (bool)(v8.v[2] != true), (bool)(v8.v[3] != true)}};
  const Vec<bool, 4> v10 = {{(bool)(v7.v[0] | v9.v[0]), (bool)(v7.v[1] | v9.v[1]), (bool)(v7.v[2] | v9.v[2]), (bool)(v7.v[3] | v9.v[3])}};
  const Vec<float, 4> v11 = {{(float)(v10.v[0] ? 0.0f : v6.v[0]), (float)(v10.v[1] ? 0.0f : v6.v[1]), (float)(v10.v[2] ? 0.0f : v6.v[2]), (float)(v10.v[3] ? 0.0f : v6.v[3])}};
  store<4>(p0 + v4, v11);
}
extern "C" __global__ void __launch_bounds__(256, 1) kernel0(float* p0, const float* p1) {
  launch_later_kernels();
  const int v0 = blockIdx.x;
  const int v1 = (int)(v0 * 1024);
  if (threadIdx.x == 0) fetch(p1 + v1, 4096);
  wait_for_earlier_kernels();
  body(now(p0), now(p1));
}
