"""A topology as SVG, readable on light and on dark pages."""

from __future__ import annotations

from xml.sax.saxutils import escape

from wgpy.labs.topology import Cable, Node, Topology, Tunnel

_CELL = (190, 116)
_BOX = 148  # the width of a node
_STYLE = """\
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
.name { font-weight: 600; font-size: 14px } .small { fill: #59636e; font-size: 11px }
.node { fill: #f6f8fa; stroke: #818b98; stroke-width: 1.2 } .gateway { stroke: #88171a; stroke-width: 2 }
.internet { stroke-dasharray: 5 4 } .cable { stroke: #818b98; stroke-width: 1.6 } .poor { stroke-dasharray: 7 3 2 3 }
.tunnel { stroke: #88171a; stroke-width: 2.4; fill: none; stroke-dasharray: 9 5 } .label { fill: #88171a }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .small { fill: #9198a1 } .node { fill: #151b23; stroke: #656c76 } .cable { stroke: #656c76 }
.gateway, .tunnel { stroke: #ff7b72 } .label { fill: #ff7b72 } }"""


def draw(topology: Topology) -> str:
    """The SVG document. The same topology gives the same text."""
    width = (max(node.column for node in topology.nodes) + 1) * _CELL[0]
    height = (max(node.row for node in topology.nodes) + 1) * _CELL[1] + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">',
        f"<title>{escape(topology.title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        *(_cable(topology, cable) for cable in topology.cables),
        *(_tunnel(topology, tunnel) for tunnel in topology.tunnels),
        *(_node(topology, node) for node in topology.nodes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _centre(node: Node) -> tuple[float, float]:
    return (node.column + 0.5) * _CELL[0], (node.row + 0.5) * _CELL[1] + 12


def _cable(topology: Topology, cable: Cable) -> str:
    (x1, y1), (x2, y2) = _centre(topology.node(cable.a)), _centre(topology.node(cable.b))
    poor = " poor" if cable.is_poor else ""
    return f'<line class="cable{poor}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _tunnel(topology: Topology, tunnel: Tunnel) -> str:
    """An arc beside the straight way, so that it shows behind what stands between its ends."""
    (x1, y1), (x2, y2) = _centre(topology.node(tunnel.a)), _centre(topology.node(tunnel.b))
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    bend = min(104, length / 4) if x2 >= x1 else -min(104, length / 4)
    x, y = (x1 + x2) / 2 + bend * (y2 - y1) / length, (y1 + y2) / 2 - bend * (x2 - x1) / length
    label = (
        f'<text class="label" x="{(x1 + x2 + 2 * x) / 4:g}" y="{(y1 + y2 + 2 * y) / 4 - 5:g}">' if tunnel.label else ""
    )
    return f'<path class="tunnel" d="M{x1:g} {y1:g}Q{x:g} {y:g} {x2:g} {y2:g}"/>' + (
        f"{label}{escape(tunnel.label)}</text>" if label else ""
    )


def _node(topology: Topology, node: Node) -> str:
    x, y = _centre(node)
    small = [*([node.note] if node.note else []), *([] if node.kind == "internet" else topology.addresses(node.name))]
    height = 26 + 14 * len(small)
    top = y - height / 2
    radius = 26 if node.kind == "internet" else 6
    lines = [
        f'<rect class="node {node.kind}" x="{x - _BOX / 2:g}" y="{top:g}" width="{_BOX}" height="{height}" '
        f'rx="{radius}"/>',
        f'<text class="name" x="{x:g}" y="{top + 18:g}">{escape(node.name)}</text>',
        *(
            f'<text class="small" x="{x:g}" y="{top + 33 + 14 * index:g}">{escape(text)}</text>'
            for index, text in enumerate(small)
        ),
    ]
    return "\n".join(lines)
