"use strict";
// Laws of single subsets, evaluated for any weights: `reduced.py` says what each field is.

const COMMON = 3; // as in subset_law/form.py

function unpack(text, kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return kind === "<f8" ? new Float64Array(bytes.buffer) : new Float32Array(bytes.buffer);
}

// Weights as the law sees them: k equal ones of 1/k as 1/k^shrinkage.
function seenBy(weights, shrinkage) {
  if (shrinkage === 1) return weights;
  const sum = d3.sum(weights), squares = d3.sum(weights, (w) => w * w);
  const factor = squares > 0 ? (sum * sum / squares) ** (1 - shrinkage) : 1;
  return weights.map((w) => w * factor);
}

// A function from weights, in the order of law.experts, to {value, deviation}.
function predictor(law) {
  const inner = {rows: byRows, made: byCovariance, terms: byTerms}[law.kind](law);
  const known = new Map(); // each drawing asks for the same again
  return (weights) => {
    const key = weights.join();
    if (!known.has(key)) {
      const [value, variance] = inner(seenBy(weights, law.shrinkage));
      const scale = law.scale * widening(law, weights);
      known.set(key, {value, deviation: scale * Math.sqrt(Math.max(variance, law.misfit))});
    }
    return known.get(key);
  };
}

// Between the base and a sum of 1, by slopes: see subset_law/spread.py.
function widening(law, weights) {
  if (!law.wider) return 1;
  const {most, by} = law.wider;
  return 1 + (most - 1) * Math.min(by * Math.max(1 - d3.sum(weights), 0), 1);
}

// What a merge has for itself beside the misfit: see subset_law/rows.py; none without slopes.
function remainderOf(law) {
  if (!law.remainder) return () => 0;
  const {variance, degree, gram} = law.remainder, n = law.experts.length;
  const inner = gram && unpack(gram, "<f8");
  return (x) => {
    let square = 0;
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) square += x[i] * x[j] * (inner ? inner[i * n + j] : +(i === j));
    return variance * square ** degree;
  };
}

function byTerms(law) {
  const beta = unpack(law.coefficients, "<f8"), roots = unpack(law.roots, "<f4");
  const remainder = remainderOf(law);
  return (x) => {
    const terms = termsOf(x);
    let value = 0, variance = law.misfit + remainder(x);
    for (let i = 0; i < terms.length; i++) value += beta[i] * terms[i];
    for (let j = 0; j < law.rank; j++) {
      let part = 0;
      for (let i = 0; i < terms.length; i++) part += roots[i * law.rank + j] * terms[i];
      variance += part * part;
    }
    return [value, variance];
  };
}

function termsOf(x) {
  const n = x.length, found = [1, ...x];
  for (let i = 0; i < n; i++) for (let j = i; j < n; j++) found.push(x[i] * x[j]);
  for (let i = 0; i < n; i++)
    for (let j = i; j < n; j++)
      for (let l = j; l < n; l++) found.push(x[i] * x[j] * x[l]);
  return found;
}

function byRows(law) {
  const n = law.n_rows, e = law.experts.length, width = e + 4;
  const duals = unpack(law.duals, "<f8"), contrast = unpack(law.contrast, "<f8");
  const lower = unpack(law.inverse, "<f8"), flat = unpack(law.points, "<f8");
  const geometry = law.geometry && unpack(law.geometry, "<f8");
  const rows = d3.range(n).map((i) => flat.subarray(i * width, (i + 1) * width));
  const inverse = (i, j) => (i >= j ? lower[i * (i + 1) / 2 + j] : lower[j * (j + 1) / 2 + i]);
  const sums = d3.range(n).map((i) => d3.sum(d3.range(n), (j) => inverse(i, j)));
  const total = d3.sum(sums), degree = law.fitted.length;
  // Covariances of unit variance of two points, by degree.
  function powers(a, b) {
    let inner = 0;
    for (let i = 0; i < e; i++) inner += a[i] * b[i];
    const [u, s1, s2, s3] = a.slice(e), [v, t1, t2, t3] = b.slice(e);
    return [
      inner + COMMON * s1 * t1,
      inner ** 2 + COMMON * (s1 * s1 * t1 * t1 + s2 * t2 + u * u * v * v),
      inner ** 3 + COMMON * (s1 ** 3 * t1 ** 3 + s1 * s2 * t1 * t2 + s3 * t3),
    ];
  }
  // Of the degrees that were fitted, and of those that could not be.
  function split(found) {
    let own = 0, left = 0;
    found.forEach((power, d) => {
      if (d < degree) own += law.fitted[d] * power;
      else left += law.omitted * power;
    });
    return [own, left];
  }
  const joint = rows.map((a, i) => rows.map((b, j) => d3.sum(split(powers(a, b))) + (i === j ? law.misfit : 0)));
  function pointOf(x) {
    const seen = geometry
      ? d3.range(e).map((j) => d3.sum(x, (w, i) => w * geometry[i * e + j]))
      : Array.from(x);
    const power = (d) => d3.sum(x, (w) => w ** d);
    return [...seen, d3.sum(x, (w, i) => w * contrast[i]), power(1), power(2), power(3)];
  }
  return (x) => {
    const point = pointOf(x), crossed = rows.map((row) => split(powers(point, row)));
    const cross = crossed.map((one) => one[0]), omitted = crossed.map((one) => one[1]);
    const value = law.constant + d3.sum(cross, (c, i) => c * duals[i]);
    const left = (1 - d3.sum(cross, (c, i) => c * sums[i])) / total;
    const shares = d3.range(n).map((i) => {
      let share = left * sums[i];
      for (let j = 0; j < n; j++) share += inverse(i, j) * cross[j];
      return share;
    });
    const [own, beyond] = split(powers(point, point));
    let variance = own + beyond + law.misfit;
    // Not by `inverse`, of which this would be left - cross: the covariance is near singular, and only
    // in full an error of the shares enters squared.
    for (let i = 0; i < n; i++) {
      let sum = -2 * (cross[i] + omitted[i]);
      for (let j = 0; j < n; j++) sum += joint[i][j] * shares[j];
      variance += shares[i] * sum;
    }
    return [value, variance];
  };
}
