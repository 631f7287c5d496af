// Whole numbers of up to 5,120 bits, without sign: as much as the longest decimal takes that can
// matter to a double.

const LIMBS = 160;

export class Big {
  private limbs: StaticArray<u32> = new StaticArray<u32>(LIMBS);
  private size: i32 = 0;

  set(value: u64): Big {
    this.limbs[0] = <u32>value;
    this.limbs[1] = <u32>(value >> 32);
    this.size = value == 0 ? 0 : value >> 32 == 0 ? 1 : 2;
    return this;
  }

  bits(): i32 {
    return this.size == 0 ? 0 : this.size * 32 - <i32>clz(this.limbs[this.size - 1]);
  }

  /** Times `factor`, and `more` added. */
  scale(factor: u32, more: u32 = 0): Big {
    let carry: u64 = more;
    for (let i = 0; i < this.size; i++) {
      carry += <u64>unchecked(this.limbs[i]) * factor;
      unchecked((this.limbs[i] = <u32>carry));
      carry >>= 32;
    }
    if (carry != 0) this.limbs[this.size++] = <u32>carry;
    return this;
  }

  power(ten: i32): Big {
    for (; ten >= 9; ten -= 9) this.scale(1000000000);
    for (; ten > 0; ten--) this.scale(10);
    return this;
  }

  shift(left: i32): Big {
    if (this.size == 0 || left <= 0) return this;
    const whole = left >> 5;
    const part = <u32>(left & 31);
    if (part != 0) this.scale(<u32>1 << part);
    for (let i = this.size - 1; i >= 0; i--) this.limbs[i + whole] = this.limbs[i];
    for (let i = 0; i < whole; i++) this.limbs[i] = 0;
    this.size += whole;
    return this;
  }

  /** Below 0, 0 or above, as this is less, equal or more. */
  compare(other: Big): i32 {
    if (this.size != other.size) return this.size - other.size;
    for (let i = this.size - 1; i >= 0; i--) {
      const a = unchecked(this.limbs[i]), b = unchecked(other.limbs[i]);
      if (a != b) return a < b ? -1 : 1;
    }
    return 0;
  }

  /** Less `other`, which is no more than this. */
  subtract(other: Big): void {
    let borrow: u64 = 0;
    for (let i = 0; i < this.size; i++) {
      const less = borrow + (i < other.size ? unchecked(other.limbs[i]) : 0);
      const limb = <u64>unchecked(this.limbs[i]);
      unchecked((this.limbs[i] = <u32>(limb - less)));
      borrow = limb < less ? 1 : 0;
    }
    while (this.size > 0 && unchecked(this.limbs[this.size - 1]) == 0) this.size--;
  }

  /** The sum of two others. */
  sum(a: Big, b: Big): Big {
    let carry: u64 = 0;
    this.size = max(a.size, b.size);
    for (let i = 0; i < this.size; i++) {
      carry += (i < a.size ? <u64>unchecked(a.limbs[i]) : 0) + (i < b.size ? <u64>unchecked(b.limbs[i]) : 0);
      unchecked((this.limbs[i] = <u32>carry));
      carry >>= 32;
    }
    if (carry != 0) this.limbs[this.size++] = <u32>carry;
    return this;
  }
}
