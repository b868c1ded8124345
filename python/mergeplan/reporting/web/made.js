"use strict";
// Laws of many rows, of values and slopes: `reduced.py` says what each field is. A page has what was
// measured and the prior's variances, and makes the rows' covariance and its factor itself, when it is
// first asked: of r rows they would be r²/2 numbers. The kernel is that of subset_law/rows.py; the
// tangents are the experts themselves, so that the geometry enters by its Gram matrix alone.

function byCovariance(law) {
  let made = null;
  return (x) => (made ||= madeLaw(law))(x);
}

// Four sums at once: one would wait for itself.
function dot(a, b, n) {
  let s = 0, t = 0, u = 0, v = 0, i = 0;
  for (; i + 3 < n; i += 4) {
    s += a[i] * b[i];
    t += a[i + 1] * b[i + 1];
    u += a[i + 2] * b[i + 2];
    v += a[i + 3] * b[i + 3];
  }
  for (; i < n; i++) s += a[i] * b[i];
  return s + t + (u + v);
}

// Of small whole powers, ten times as fast as `**`.
function raised(v, power) {
  let found = 1;
  for (; power > 0; power--) found *= v;
  return found;
}

function madeLaw(law) {
  const m = law.experts.length, flat = unpack(law.weights, "<f8"), n = flat.length / m;
  const gram = law.gram && unpack(law.gram, "<f8"), contrast = unpack(law.contrast, "<f8"), duals = unpack(law.duals, "<f8");
  const degree = law.fitted.length, [remainder, slopeMisfit] = law.own, own6 = law.remainder ? law.remainder.degree : 1;
  // Each degree's variance, and what of it could not be fitted.
  const fitted = d3.range(3).map((d) => law.fitted[d] || 0), left = d3.range(3).map((d) => (d < degree ? 0 : law.omitted));

  // A weighting as the kernel needs it: G·w and c_1 to c_3 with their derivatives.
  function pointOf(w) {
    const along = new Float64Array(m);
    for (let i = 0; i < m; i++) {
      let sum = 0;
      if (gram) for (let j = 0; j < m; j++) sum += gram[i * m + j] * w[j];
      else sum = w[i];
      along[i] = sum;
    }
    let u = 0, s1 = 0, s2 = 0, s3 = 0;
    for (let i = 0; i < m; i++) {
      u += w[i] * contrast[i];
      s1 += w[i];
      s2 += w[i] ** 2;
      s3 += w[i] ** 3;
    }
    const value = [s1, s1 * s1, s2, u * u, s1 ** 3, s1 * s2, s3];
    const slope = (i) => [1, 2 * s1, 2 * w[i], 2 * u * contrast[i], 3 * s1 * s1, s2 + 2 * s1 * w[i], 3 * w[i] ** 2];
    return {w, along, value, slope};
  }

  // Rows: values, then of points with slopes one by each expert.
  const points = d3.range(n).map((p) => pointOf(flat.subarray(p * m, (p + 1) * m)));
  const rows = points.map((one, p) => ({one, p, expert: -1, common: one.value}));
  for (const p of law.sloped)
    for (let i = 0; i < m; i++) rows.push({one: points[p], p, expert: i, common: points[p].slope(i)});
  const size = rows.length;

  function inner(a, b) {
    let sum = 0;
    for (let i = 0; i < m; i++) sum += a.w[i] * b.along[i];
    return sum;
  }

  // Of one degree: v^d and its derivatives by the weights of the rows.
  function power(a, b, d, v) {
    const i = a.expert, j = b.expert;
    if (i < 0 && j < 0) return raised(v, d);
    const once = d * raised(v, d - 1);
    if (j < 0) return once * b.one.along[i];
    if (i < 0) return once * a.one.along[j];
    const twice = d > 1 ? d * (d - 1) * raised(v, d - 2) : 0;
    return once * (gram ? gram[i * m + j] : +(i === j)) + twice * b.one.along[i] * a.one.along[j];
  }

  function covariance(a, b, v, shares) {
    const c = a.common, t = b.common;
    let sum = 0;
    if (shares[0]) sum += shares[0] * (power(a, b, 1, v) + COMMON * c[0] * t[0]);
    if (shares[1]) sum += shares[1] * (power(a, b, 2, v) + COMMON * (c[1] * t[1] + c[2] * t[2] + c[3] * t[3]));
    if (shares[2]) sum += shares[2] * (power(a, b, 3, v) + COMMON * (c[4] * t[4] + c[5] * t[5] + c[6] * t[6]));
    return sum;
  }

  // Rows of the factor and, where a degree could not be fitted, of what that adds; lower halves.
  const factor = [], beyond = degree < 3 ? [] : null, kept = [];
  const inners = points.map((a) => points.map((b) => inner(a, b)));
  for (let r = 0; r < size; r++) {
    const line = new Float64Array(r + 1), more = beyond && new Float64Array(r + 1), a = rows[r];
    for (let s = 0; s <= r; s++) {
      const b = rows[s], v = inners[a.p][b.p];
      line[s] = covariance(a, b, v, fitted);
      if (a.p === b.p) line[s] += remainder * power(a, b, own6, v);
      if (more) more[s] = covariance(a, b, v, left);
    }
    line[r] += law.misfit + (a.expert < 0 ? 0 : slopeMisfit);
    kept.push(line.slice());
    if (more) beyond.push(more);
    for (let s = 0; s <= r; s++) {
      const other = s === r ? line : factor[s];
      const sum = line[s] - dot(line, other, s);
      line[s] = s === r ? Math.sqrt(sum) : sum / other[s];
    }
    factor.push(line);
  }

  function solve(right) {
    const x = Float64Array.from(right);
    for (let r = 0; r < size; r++) {
      x[r] = (x[r] - dot(factor[r], x, r)) / factor[r][r];
    }
    for (let r = size - 1; r >= 0; r--) {
      x[r] /= factor[r][r];
      const line = factor[r];
      for (let q = 0; q < r; q++) x[q] -= line[q] * x[r];
    }
    return x;
  }

  const sums = solve(rows.map((one) => +(one.expert < 0)));
  const total = d3.sum(sums.subarray(0, n));
  return (x) => {
    const one = pointOf(x), row = {one, p: -1, expert: -1, common: one.value};
    const to = points.map((other) => inner(one, other));
    const cross = new Float64Array(size), omitted = new Float64Array(size);
    let value = law.constant, unit = 1;
    for (let r = 0; r < size; r++) {
      cross[r] = covariance(row, rows[r], to[rows[r].p], fitted);
      if (beyond) omitted[r] = covariance(row, rows[r], to[rows[r].p], left);
      value += cross[r] * duals[r];
      unit -= cross[r] * sums[r];
    }
    const shares = solve(cross), own = inner(one, one);
    for (let r = 0; r < size; r++) shares[r] += unit / total * sums[r];
    let variance = covariance(row, row, own, fitted) + covariance(row, row, own, left) + law.misfit + remainder * raised(own, own6);
    // In full, not by what the factor says of it: then an error of the shares enters squared.
    for (let r = 0; r < size; r++) {
      let sum = kept[r][r] * shares[r] / 2 + dot(kept[r], shares, r);
      if (beyond) sum += beyond[r][r] * shares[r] / 2 + dot(beyond[r], shares, r);
      variance += 2 * shares[r] * (sum - cross[r] - omitted[r]);
    }
    return [value, variance];
  };
}
