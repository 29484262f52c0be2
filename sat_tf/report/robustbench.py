"""The entry of a leaderboard: RobustBench."""

from sat_tf.report.words import format_radius


def robustbench(full: dict, name: str) -> dict:
    """Return the fields of a RobustBench entry, as far as an evaluation knows them (Croce et al. 2021)."""
    by_attack = {row["attack"]: f"{100 * row['accuracy']:.2f}" for row in full["evaluations"]}
    radii = [row["epsilon"] for row in full["evaluations"] if row["epsilon"] is not None]
    norms = {row["norm"] for row in full["evaluations"] if row["norm"]}
    return {
        "link": None,
        "name": name,
        "authors": None,
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": full["dataset"]["name"],
        "venue": None,
        "architecture": f"{full['model']}, {full['act']}" if full["act"] else full["model"],
        "threat_model": {"linf": "Linf", "l2": "L2"}.get(min(norms, default=None)),
        "eps": format_radius(radii[0], min(norms)) if radii else None,
        "clean_acc": by_attack.get("clean"),
        "reported": None,
        "autoattack_acc": by_attack.get("autoattack"),
        "unreliable": not full["trusted"],
        "footnote": None,
    }
