#!/usr/bin/env bash
# statsmodels 0.15.0: McNemar's test, the usual one for two models on the same questions, with exact=False. The continuity
# correction is taken off the difference of the discordant counts even where that makes it negative, and then squared
# (contingency_tables.mcnemar). Two models that answer every question alike get a statistic of 1 / 0 and p = 0, the surest
# difference there is; without the correction p is nan, and Holm's method calls a nan beside significant tests significant
# (multitest.multipletests asks what is NOT rejected). A guess would be: no difference at all is p = 1, as exact=True says.
# It happens where fine-tuning changed no answer, or one arm was read twice.
#
# Seen:
#   equal answers: exact p 1.000, corrected p 0.000, without correction p nan
#   one each way: exact p 1.000, corrected p 0.480, without correction p 1.000
#   Holm of p = 0.001 and that nan: significant [True, True], adjusted [0.002, nan]
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check statsmodels==0.15.0 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
"$folder/venv/bin/python" -W ignore - <<'P'
from math import isnan

from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

# rows: the first model right, wrong; columns: the second model right, wrong
equal, tied = [[50, 0], [0, 50]], [[49, 1], [1, 49]]
seen = []
for name, table in (("equal answers", equal), ("one each way", tied)):
    exact, corrected, plain = (
        float(mcnemar(table, **how).pvalue)
        for how in ({"exact": True}, {"exact": False}, {"exact": False, "correction": False})
    )
    seen += [exact, corrected, plain]
    print(f"{name}: exact p {exact:.3f}, corrected p {corrected:.3f}, without correction p {plain:.3f}")
rejected, adjusted, *_ = multipletests([0.001, seen[2]], method="holm")
print(f"Holm of p = 0.001 and that nan: significant {rejected.tolist()}, adjusted {adjusted.tolist()}")
ok = seen[0] == 1 and seen[1] == 0 and isnan(seen[2]) and rejected.tolist() == [True, True]
assert ok and seen[3] == 1 and 0.4 < seen[4] < 0.5 and seen[5] == 1, "the behaviour has changed"
P
